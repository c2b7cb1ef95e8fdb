{{- /* Written by `go test ./kube/inject -run TestTemplates -update`; a test compares it. */ -}}
{{- define "nearside.sidecar.version" -}}
v0.1.0
{{- end }}

{{- define "nearside.sidecar.defaults" -}}
admin:
  port: 9464
appEnv: false
config: ""
cpu: 50m
domain: default
extraEnv: []
image:
  pullPolicy: IfNotPresent
  repository: ghcr.io/nearside-cache/nearside
  tag: ""
logFormat: json
logLevel: info
memory: 128Mi
mode: auto
nats:
  caSecret:
    key: ca.crt
    name: ""
  credsSecret:
    key: nats.creds
    name: ""
  jetStreamDomain: ""
  nkeySecret:
    key: nats.nk
    name: ""
  tlsSecret:
    name: ""
  url: nats://nearside-nats.nearside.svc:4222
socketMode: "0666"
{{- end }}

{{- define "nearside.sidecar.annotations" -}}
- name: image
  pattern: ^[A-Za-z0-9][A-Za-z0-9._/:@-]{0,511}$
  setting: image
  want: the name of an image
- name: memory
  pattern: ^((3[2-9]|[4-9][0-9]|[1-9][0-9]{2,5})Mi|[1-9][0-9]{0,2}Gi)$
  setting: memory
  want: a whole number of Mi or Gi, at least 32Mi, such as 128Mi
- name: cpu
  pattern: ^([1-9][0-9]{0,5}m|[1-9][0-9]{0,2}|[0-9]{1,2}\.[0-9]{1,3})$
  setting: cpu
  want: a number of CPUs such as 50m or 0.5
- name: domain
  pattern: ^[a-z0-9_-]{1,32}$
  setting: domain
  want: 1 to 32 characters of a-z, 0-9, _ and -
- name: config
  pattern: ^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?)?$
  setting: config
  want: the name of a ConfigMap, or nothing
- name: socket-mode
  pattern: ^0?[0-7]{3}$
  setting: socketMode
  want: a file mode in octal digits such as 0666
- name: log-level
  pattern: ^(trace|debug|info|warn|error)$
  setting: logLevel
  want: trace, debug, info, warn or error
- name: mode
  pattern: ^(auto|native|classic)$
  setting: mode
  want: auto, native or classic
- name: admin-port
  pattern: ^(0|[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])$
  setting: admin.port
  want: a port from 1 to 65535, or 0 for none
- name: app-env
  pattern: ^(true|false)$
  setting: appEnv
  want: true or false
{{- end }}
