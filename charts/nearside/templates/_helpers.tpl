{{- /* Names, labels and what several templates derive from the values. */ -}}

{{- define "nearside.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "nearside.fullname" -}}
{{- $name := include "nearside.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- /* The names of objects of a cluster: two releases of one name may be in two namespaces. */ -}}
{{- define "nearside.clusterName" -}}
{{- $full := include "nearside.fullname" . }}
{{- if eq $full .Release.Namespace }}{{ $full }}{{ else }}{{ printf "%s-%s" $full .Release.Namespace | trunc 63 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- /* include "nearside.selector" (list . "component") */ -}}
{{- define "nearside.selector" -}}
{{- $ := index . 0 -}}
app.kubernetes.io/name: {{ include "nearside.name" $ }}
app.kubernetes.io/instance: {{ $.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- /* Labels of pods: without versions, so that an upgrade that changes nothing else of a
pod does not replace it. include "nearside.podLabels" (list . "component") */ -}}
{{- define "nearside.podLabels" -}}
{{ include "nearside.selector" . }}
app.kubernetes.io/part-of: nearside
{{- with (index . 0).Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* include "nearside.labels" (list . "component") */ -}}
{{- define "nearside.labels" -}}
{{- $ := index . 0 -}}
{{ include "nearside.podLabels" . }}
app.kubernetes.io/version: {{ $.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $.Chart.Name $.Chart.Version | replace "+" "_" }}
{{- end }}

{{- /* Labels and annotations of an object: include "nearside.metadata" (list . "component" annotations?) */ -}}
{{- define "nearside.metadata" -}}
{{- $ := index . 0 -}}
labels:
  {{- include "nearside.labels" (list $ (index . 1)) | nindent 2 }}
{{- $own := dict }}
{{- if gt (len .) 2 }}{{ $own = index . 2 }}{{ end }}
{{- with merge dict $own $.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "nearside.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{- define "nearside.imagePullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* Not empty where the cluster has policies that mutate. */ -}}
{{- define "nearside.hasPolicies" -}}
{{- if .Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy" }}true{{ end }}
{{- end }}

{{- /* What injects: policy, webhook or none. */ -}}
{{- define "nearside.mode" -}}
{{- $old := and (not (include "nearside.hasPolicies" .)) (semverCompare "<1.36-0" .Capabilities.KubeVersion.Version) }}
{{- if and $old (eq .Values.injection.mode "policy") }}
{{- fail (printf "injection.mode is policy, which needs Kubernetes 1.36 or later, and this cluster is %s: want auto or webhook" .Capabilities.KubeVersion.Version) }}
{{- end }}
{{- if ne .Values.injection.mode "auto" -}}
{{ .Values.injection.mode }}
{{- else if include "nearside.hasPolicies" . -}}
policy
{{- else -}}
webhook
{{- end }}
{{- end }}

{{- /* Not empty where pods that ask and were not injected are refused. */ -}}
{{- define "nearside.guards" -}}
{{- with .Values.injection }}
{{- if and .guard.enabled (eq .failurePolicy "Fail") (ne .mode "none") (semverCompare ">=1.30-0" $.Capabilities.KubeVersion.Version) }}true{{ end }}
{{- end }}
{{- end }}

{{- /* Where NATS is, also where the values leave it open. */ -}}
{{- define "nearside.natsURL" -}}
{{- if .Values.sidecar.nats.url -}}
{{ .Values.sidecar.nats.url }}
{{- else if .Values.nats.bundled.enabled -}}
nats://{{ .Values.nats.bundled.clusterIP | default (printf "%s-nats.%s.svc" (include "nearside.fullname" .) .Release.Namespace) }}:4222
{{- else -}}
nats://nearside-nats.nearside.svc:4222
{{- end }}
{{- end }}

{{- /* The settings of the injection: the values below sidecar, and what they leave open. */ -}}
{{- define "nearside.settings" -}}
{{- $s := deepCopy .Values.sidecar }}
{{- $_ := set $s.image "tag" ($s.image.tag | default .Chart.AppVersion) }}
{{- $_ := set $s.nats "url" (include "nearside.natsURL" .) }}
{{- if and .Values.policies.config (not $s.config) }}{{ $_ := set $s "config" .Values.policies.name }}{{ end }}
{{- toYaml $s }}
{{- end }}

{{- /* What pod security "restricted" asks of a container and of a pod. */ -}}
{{- define "nearside.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- /* include "nearside.podSecurity" uid */ -}}
{{- define "nearside.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ . }}
runAsGroup: {{ . }}
seccompProfile:
  type: RuntimeDefault
{{- end }}
