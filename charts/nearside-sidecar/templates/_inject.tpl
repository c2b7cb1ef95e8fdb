{{- /*
The whole template of a pod with its sidecar:
  include "nearside.inject" (dict
    "template" a map with metadata and spec
    "settings" what differs from the defaults, as below "sidecar" in the values of the
               chart nearside; may be left out
    "capabilities" .Capabilities, so that mode auto knows old clusters; may be left out)
A template with the annotation nearside.dev/inject: "false" stays as it is, and one that
has its sidecar already. What cannot be done fails, with every reason.
*/ -}}
{{- define "nearside.inject" -}}
{{- $template := deepCopy .template }}
{{- $plan := include "nearside.sidecar.plan" . | fromYaml }}
{{- if $plan.wanted }}
{{- $_ := include "nearside.sidecar.apply" (dict "template" $template "plan" $plan) }}
{{- end }}
{{- toYaml $template }}
{{- end }}

{{- /* The parts, for charts that put them together themselves; they take what
"nearside.inject" takes. The container is YAML of one container, the others of lists. */ -}}
{{- define "nearside.container" -}}
{{- (include "nearside.sidecar.plan" . | fromYaml).container | toYaml }}
{{- end }}

{{- define "nearside.volumes" -}}
{{- (include "nearside.sidecar.plan" . | fromYaml).volumes | toYaml }}
{{- end }}

{{- define "nearside.volumeMounts" -}}
{{- list (include "nearside.sidecar.mount" . | fromYaml) | toYaml }}
{{- end }}

{{- /* What the injection does to a pod: wanted, native, appEnv, status, container, volumes. */ -}}
{{- define "nearside.sidecar.plan" -}}
{{- $template := .template | default dict }}
{{- $annotations := dig "metadata" "annotations" dict $template | default dict }}
{{- $spec := $template.spec | default dict }}
{{- $version := include "nearside.sidecar.version" . }}
{{- $settings := include "nearside.sidecar.settings" . | fromYaml }}
{{- $v := include "nearside.sidecar.values" (dict "settings" $settings "version" $version) | fromYaml }}
{{- $faults := list }}
{{- range include "nearside.sidecar.annotations" . | fromYamlArray }}
  {{- $value := get $v .name | toString }}
  {{- if not (regexMatch .pattern $value) }}
  {{- $faults = append $faults (printf "setting %s is %.60q: want %s" .setting $value .want) }}
  {{- end }}
{{- end }}
{{- if $spec.hostNetwork }}{{ $_ := set $v "admin-port" "0" }}{{ end }}
{{- $known := list "nearside.dev/inject" "nearside.dev/status" }}
{{- $names := list "inject" }}
{{- range include "nearside.sidecar.annotations" . | fromYamlArray }}
  {{- $name := printf "nearside.dev/%s" .name }}
  {{- $known = append $known $name }}
  {{- $names = append $names .name }}
  {{- if hasKey $annotations $name }}
    {{- $value := get $annotations $name }}
    {{- $_ := set $v .name $value }}
    {{- if not (regexMatch .pattern $value) }}
    {{- $faults = append $faults (printf "annotation %s is %.60q: want %s" $name $value .want) }}
    {{- end }}
  {{- end }}
{{- end }}
{{- range keys $annotations | sortAlpha }}
  {{- if and (hasPrefix "nearside.dev/" .) (not (has . $known)) }}
  {{- $faults = append $faults (printf "annotation %s is not known: want one of %s" . (join ", " $names)) }}
  {{- end }}
{{- end }}
{{- if eq $v.mode "auto" }}{{ $_ := set $v "mode" (include "nearside.sidecar.auto" .capabilities) }}{{ end }}
{{- $wish := get $annotations "nearside.dev/inject" | default "true" }}
{{- $state := include "nearside.sidecar.state" (dict "annotations" $annotations "spec" $spec) | fromYaml }}
{{- $faults = concat $faults $state.faults }}
{{- if and (ne $v.mode "native") (not (has ($spec.restartPolicy | default "Always") (list "Always"))) }}
{{- $faults = append $faults (printf "restartPolicy is %q: in mode classic the sidecar would keep the pod from completing; want mode native, which needs Kubernetes 1.29" $spec.restartPolicy) }}
{{- end }}
{{- if not (has $wish (list "true" "false")) }}
{{- $faults = list (printf "annotation nearside.dev/inject is %.60q: want true or false" $wish) }}
{{- end }}
{{- $wanted := and (ne $wish "false") (not $state.injected) }}
{{- if and $wanted $faults }}{{ fail (join "; " $faults) }}{{ end }}
{{- if $wanted }}
{{- include "nearside.sidecar.made" (dict "values" $v "settings" $settings "version" $version "hostNetwork" $spec.hostNetwork) }}
{{- end }}
wanted: {{ $wanted }}
{{- end }}

{{- /* What is made for the values of a pod. */ -}}
{{- define "nearside.sidecar.made" -}}
{{- $port := index .values "admin-port" }}
{{- $_ := set .values "admin" (ternary "" (printf ":%s" $port) (eq $port "0")) }}
{{- $container := include "nearside.sidecar.container" . | fromYaml }}
{{- $volumes := include "nearside.sidecar.volumes" . | fromYamlArray }}
{{- $container = merge $container (include (printf "nearside.sidecar.%s" .values.mode) . | fromYaml) }}
{{- if and (ne $port "0") (not .hostNetwork) }}
{{- $container = merge $container (include "nearside.sidecar.ports" . | fromYaml) }}
{{- end }}
{{- if .values.config }}
{{- $config := include "nearside.sidecar.config" . | fromYaml }}
{{- $_ := set $container "env" (concat $container.env $config.env) }}
{{- $_ := set $container "volumeMounts" (append $container.volumeMounts $config.mount) }}
{{- $volumes = append $volumes $config.volume }}
{{- end }}
{{- dict "native" (eq .values.mode "native") "appEnv" (eq (index .values "app-env") "true")
  "status" (include "nearside.sidecar.status" (dict "version" .version "mode" .values.mode))
  "container" $container "volumes" $volumes | toYaml }}
{{ end }}

{{- /* What a pod has already: injected, and what is in the way. */ -}}
{{- define "nearside.sidecar.state" -}}
{{- $all := concat (.spec.initContainers | default list) (.spec.containers | default list) }}
{{- $taken := false }}
{{- $faults := list }}
{{- range $all }}{{ if eq .name "nearside" }}{{ $taken = true }}{{ end }}{{ end }}
{{- if $taken }}
{{- $faults = append $faults "the pod has a container \"nearside\" of its own: want another name, or no injection" }}
{{- end }}
{{- range .spec.volumes }}
  {{- if has .name (list "nearside-socket" "nearside-no-token" "nearside-nats" "nearside-config") }}
  {{- $faults = append $faults (printf "the pod has a volume %q of its own: want another name" .name) }}
  {{- end }}
{{- end }}
{{- range $c := $all }}
  {{- $there := false }}
  {{- range .volumeMounts }}{{ if eq .mountPath "/run/nearside" }}{{ $there = true }}{{ end }}{{ end }}
  {{- if $there }}
  {{- $faults = append $faults (printf "container %q has a mount of its own at /run/nearside: want another place" $c.name) }}
  {{- end }}
{{- end }}
{{- dict "injected" (and $taken (hasKey .annotations "nearside.dev/status")) "faults" $faults | toYaml }}
{{- end }}

{{- /* Changes a template, in place. */ -}}
{{- define "nearside.sidecar.apply" -}}
{{- $spec := .template.spec }}
{{- $told := $spec.containers }}
{{- if .plan.native }}{{ $told = concat ($spec.initContainers | default list) $spec.containers }}{{ end }}
{{- range $c := $told }}
  {{- $_ := set $c "volumeMounts" (append ($c.volumeMounts | default list) (include "nearside.sidecar.mount" . | fromYaml)) }}
  {{- if $.plan.appEnv }}
    {{- range include "nearside.sidecar.appEnv" . | fromYamlArray }}
      {{- $name := .name }}
      {{- $there := false }}
      {{- range $c.env }}{{ if eq .name $name }}{{ $there = true }}{{ end }}{{ end }}
      {{- if not $there }}{{ $_ := set $c "env" (append ($c.env | default list) .) }}{{ end }}
    {{- end }}
  {{- end }}
{{- end }}
{{- if .plan.native }}
{{- $_ := set $spec "initContainers" (prepend ($spec.initContainers | default list) .plan.container) }}
{{- else }}
{{- $_ := set $spec "containers" (prepend $spec.containers .plan.container) }}
{{- end }}
{{- $_ := set $spec "volumes" (concat ($spec.volumes | default list) .plan.volumes) }}
{{- $metadata := .template.metadata | default dict }}
{{- $_ := set $metadata "annotations" (set ($metadata.annotations | default dict) "nearside.dev/status" .plan.status) }}
{{- $_ := set $metadata "labels" (set ($metadata.labels | default dict) "nearside.dev/injected" "true") }}
{{- $_ := set .template "metadata" $metadata }}
{{- end }}

{{- /* The settings, with the defaults for what is not said. */ -}}
{{- define "nearside.sidecar.settings" -}}
{{- $defaults := include "nearside.sidecar.defaults" . | fromYaml }}
{{- $given := .settings | default dict }}
{{- with include "nearside.sidecar.unknown" (dict "given" $given "known" $defaults "path" "") | fromYamlArray }}
{{- fail (printf "settings that are not known: %s" (join ", " .)) }}
{{- end }}
{{- mergeOverwrite $defaults (deepCopy $given) | toYaml }}
{{- end }}

{{- define "nearside.sidecar.unknown" -}}
{{- range $key := keys .given | sortAlpha }}
{{- $path := printf "%s%s" $.path $key }}
{{- if not (hasKey $.known $key) }}
- {{ $path | quote }}
{{- else if and (kindIs "map" (get $.known $key)) (kindIs "map" (get $.given $key)) }}
{{- include "nearside.sidecar.unknown" (dict "given" (get $.given $key) "known" (get $.known $key) "path" (printf "%s." $path)) }}
{{- end }}
{{- end }}
{{- end }}
