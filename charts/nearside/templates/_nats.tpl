{{- /* How the Job reaches NATS: stream.nats, and sidecar.nats where that says nothing. */ -}}

{{- define "nearside.streamSecret" -}}
{{- $ := index . 0 -}}
{{- $own := index $.Values.stream.nats (index . 1) -}}
{{- toYaml (ternary $own (index $.Values.sidecar.nats (index . 1)) (ne $own.name "")) -}}
{{- end }}

{{- define "nearside.streamEnv" -}}
- {name: NEARSIDE_NATS, value: {{ .Values.stream.nats.url | default (include "nearside.natsURL" .) | quote }}}
{{- with .Values.sidecar.nats.jetStreamDomain }}
- {name: NEARSIDE_NATS_DOMAIN, value: {{ . | quote }}}
{{- end }}
{{- range $secret, $variable := dict "credsSecret" "NATS_CREDS" "nkeySecret" "NATS_NKEY" "caSecret" "NATS_CA" }}
{{- with include "nearside.streamSecret" (list $ $secret) | fromYaml }}
{{- if .name }}
- {name: NEARSIDE_{{ $variable }}, value: {{ printf "/etc/nats/%s/%s" $secret .key | quote }}}
{{- end }}
{{- end }}
{{- end }}
{{- if (include "nearside.streamSecret" (list . "tlsSecret") | fromYaml).name }}
- {name: NEARSIDE_NATS_CERT, value: /etc/nats/tlsSecret/tls.crt}
- {name: NEARSIDE_NATS_KEY, value: /etc/nats/tlsSecret/tls.key}
{{- end }}
{{- end }}

{{- define "nearside.streamMounts" -}}
{{- range $secret := list "credsSecret" "nkeySecret" "tlsSecret" "caSecret" }}
{{- if (include "nearside.streamSecret" (list $ $secret) | fromYaml).name }}
- {name: {{ $secret | lower }}, mountPath: {{ printf "/etc/nats/%s" $secret }}, readOnly: true}
{{- end }}
{{- end }}
{{- end }}

{{- define "nearside.streamVolumes" -}}
{{- range $secret := list "credsSecret" "nkeySecret" "tlsSecret" "caSecret" }}
{{- with (include "nearside.streamSecret" (list $ $secret) | fromYaml).name }}
- name: {{ $secret | lower }}
  secret: {secretName: {{ . }}}
{{- end }}
{{- end }}
{{- end }}

{{- /* The Job's pod. */ -}}
{{- define "nearside.streamPod" -}}
metadata:
  labels:
    {{- include "nearside.podLabels" (list . "stream") | nindent 4 }}
  annotations:
    # One Job for each revision: it makes and checks the streams again.
    helm-revision: {{ .Release.Revision | quote }}
    {{- with .Values.commonAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  restartPolicy: OnFailure
  automountServiceAccountToken: false
  {{- with include "nearside.imagePullSecrets" . | trim }}{{ . | nindent 2 }}{{ end }}
  securityContext:
    {{- include "nearside.podSecurity" 65532 | nindent 4 }}
  containers:
    {{- range $i, $domain := .Values.stream.domains | default (list .Values.sidecar.domain) | uniq }}
    # By number, for two domains may be the same but for what no container's name may hold.
    - name: {{ printf "domain-%d-%s" $i ($domain | replace "_" "-") | trimSuffix "-" }}
      image: {{ include "nearside.image" $ }}
      imagePullPolicy: {{ $.Values.image.pullPolicy }}
      args:
        - stream
        - ensure
        - --domain={{ $domain }}
        - --replicas={{ $.Values.stream.replicas }}
        - --max-age={{ $.Values.stream.maxAge }}
        - --timeout=30s
      env:
        {{- include "nearside.streamEnv" $ | nindent 8 }}
      {{- with include "nearside.streamMounts" $ | trim }}
      volumeMounts:
        {{- . | nindent 8 }}
      {{- end }}
      resources:
        {{- toYaml $.Values.stream.resources | nindent 8 }}
      securityContext:
        {{- include "nearside.containerSecurity" $ | nindent 8 }}
      terminationMessagePolicy: FallbackToLogsOnError
    {{- end }}
  {{- with include "nearside.streamVolumes" . | trim }}
  volumes:
    {{- . | nindent 4 }}
  {{- end }}
  {{- with .Values.stream.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.stream.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
