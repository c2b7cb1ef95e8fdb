{{- /*
The sidecar and what it stands on, as kube/inject has them. All of these take
  (dict "values" what holds for the pod, by the names of the annotations, and "admin"
        "settings" all settings)
and give YAML. What depends on more than text (mode, port, config) is apart: the
admission policy is made of the same parts, and decides on them for each pod.
*/ -}}

{{- define "nearside.sidecar.container" -}}
name: nearside
image: {{ .values.image | quote }}
imagePullPolicy: {{ .settings.image.pullPolicy }}
args: [serve]
env:
  {{- include "nearside.sidecar.env" . | nindent 2 }}
resources:
  requests:
    cpu: {{ .values.cpu | quote }}
    memory: {{ .values.memory | quote }}
  limits:
    memory: {{ .values.memory | quote }}
terminationMessagePolicy: FallbackToLogsOnError
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  readOnlyRootFilesystem: true
  allowPrivilegeEscalation: false
  capabilities:
    drop: [ALL]
  seccompProfile:
    type: RuntimeDefault
volumeMounts:
  - name: nearside-socket
    mountPath: /run/nearside
  - name: nearside-no-token
    mountPath: /var/run/secrets/kubernetes.io/serviceaccount
    readOnly: true
  {{- if include "nearside.sidecar.files" .settings }}
  - name: nearside-nats
    mountPath: /etc/nearside-nats
    readOnly: true
  {{- end }}
{{- end }}

{{- define "nearside.sidecar.env" -}}
- name: NEARSIDE_SOCKET
  value: /run/nearside/nearside.sock
- name: NEARSIDE_SOCKET_MODE
  value: {{ index .values "socket-mode" | quote }}
- name: NEARSIDE_DOMAIN
  value: {{ .values.domain | quote }}
- name: NEARSIDE_LOG_LEVEL
  value: {{ index .values "log-level" | quote }}
- name: NEARSIDE_LOG_FORMAT
  value: {{ .settings.logFormat }}
- name: NEARSIDE_ADMIN
  value: {{ .values.admin | quote }}
- name: NEARSIDE_NATS
  value: {{ .settings.nats.url | quote }}
{{- with .settings.nats.jetStreamDomain }}
- name: NEARSIDE_NATS_DOMAIN
  value: {{ . | quote }}
{{- end }}
{{- range include "nearside.sidecar.files" .settings | fromYamlArray }}
- name: {{ .variable }}
  value: /etc/nearside-nats/{{ .file }}
{{- end }}
{{- with .settings.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* What differs between the modes. */ -}}
{{- define "nearside.sidecar.native" -}}
restartPolicy: Always
startupProbe:
  exec:
    command: [nearside, ready]
  periodSeconds: 1
  timeoutSeconds: 5
  failureThreshold: 120
{{- end }}

{{- define "nearside.sidecar.classic" -}}
lifecycle:
  postStart:
    exec:
      command: [nearside, ready, --wait, 2m]
{{- end }}

{{- /* The port of the metrics; hostNetwork has none. */ -}}
{{- define "nearside.sidecar.ports" -}}
ports:
  - name: nearside-admin
    containerPort: {{ index .values "admin-port" }}
    protocol: TCP
{{- end }}

{{- /* What a ConfigMap adds. */ -}}
{{- define "nearside.sidecar.config" -}}
env:
  - name: NEARSIDE_CONFIG
    value: /etc/nearside/nearside.yaml
  - name: NEARSIDE_CONFIG_OPTIONAL
    value: "true"
mount:
  name: nearside-config
  mountPath: /etc/nearside
  readOnly: true
volume:
  name: nearside-config
  configMap:
    name: {{ .values.config | quote }}
    optional: true
{{- end }}

{{- define "nearside.sidecar.volumes" -}}
- name: nearside-socket
  emptyDir:
    medium: Memory
    sizeLimit: 1Mi
- name: nearside-no-token
  emptyDir:
    medium: Memory
    sizeLimit: 1Mi
{{- with include "nearside.sidecar.files" .settings | fromYamlArray }}
- name: nearside-nats
  projected:
    sources:
      {{- range . }}
      - secret:
          name: {{ .secret | quote }}
          items:
            - key: {{ .key | quote }}
              path: {{ .file }}
      {{- end }}
{{- end }}
{{- end }}

{{- /* What the app's containers get. */ -}}
{{- define "nearside.sidecar.mount" -}}
name: nearside-socket
mountPath: /run/nearside
readOnly: true
{{- end }}

{{- define "nearside.sidecar.appEnv" -}}
- name: NEARSIDE_SOCKET
  value: /run/nearside/nearside.sock
- name: REDIS_URL
  value: unix:///run/nearside/nearside.sock
{{- end }}

{{- /* The files with which the sidecar logs in: include "nearside.sidecar.files" settings */ -}}
{{- define "nearside.sidecar.files" -}}
{{- $all := list
  (list "NEARSIDE_NATS_CREDS" "nats.creds" .nats.credsSecret.name .nats.credsSecret.key)
  (list "NEARSIDE_NATS_NKEY" "nats.nk" .nats.nkeySecret.name .nats.nkeySecret.key)
  (list "NEARSIDE_NATS_CA" "ca.crt" .nats.caSecret.name .nats.caSecret.key)
  (list "NEARSIDE_NATS_CERT" "tls.crt" .nats.tlsSecret.name "tls.crt")
  (list "NEARSIDE_NATS_KEY" "tls.key" .nats.tlsSecret.name "tls.key") }}
{{- range $all }}
{{- if index . 2 }}
- variable: {{ index . 0 }}
  file: {{ index . 1 }}
  secret: {{ index . 2 | quote }}
  key: {{ index . 3 | quote }}
{{- end }}
{{- end }}
{{- end }}

{{- /* What the injection tells of itself: (dict "version" "mode"). */ -}}
{{- define "nearside.sidecar.status" -}}
{"version":{{ .version | quote }},"container":"nearside","mode":{{ .mode | quote }}}
{{- end }}

{{- /* What mode auto is: include "nearside.sidecar.auto" .Capabilities, or nil */ -}}
{{- define "nearside.sidecar.auto" -}}
{{- if and . (semverCompare "<1.29-0" .KubeVersion.Version) -}} classic {{- else -}} native {{- end -}}
{{- end }}

{{- /* What the settings say, by the names of the annotations: (dict "settings" "version") */ -}}
{{- define "nearside.sidecar.values" -}}
{{- $s := .settings -}}
image: {{ printf "%s:%s" $s.image.repository ($s.image.tag | default .version) | quote }}
memory: {{ $s.memory | quote }}
cpu: {{ $s.cpu | quote }}
domain: {{ $s.domain | quote }}
config: {{ $s.config | quote }}
socket-mode: {{ $s.socketMode | quote }}
log-level: {{ $s.logLevel | quote }}
mode: {{ $s.mode | quote }}
admin-port: {{ $s.admin.port | toString | quote }}
app-env: {{ $s.appEnv | toString | quote }}
{{- end }}
