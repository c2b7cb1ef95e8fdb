{{- /* The injection in CEL. What is in the sidecar comes from _injection-sidecar.tpl, the
templates of the library chart, and from the annotations of kube/inject; here is how an
admission policy puts it into a pod. A test holds the result equal to the other ways. */ -}}

{{- /* Any value as CEL. Maps and lists of CEL hold values of one type, or dyn. A string
__nearside_NAME__ stands for variables.NAME, also inside of others; NAME with int_ in
front of it for a number. */ -}}
{{- define "nearside.cel" -}}
{{- $all := list }}
{{- if kindIs "map" . }}
{{- range $key := keys . | sortAlpha }}
{{- $all = append $all (printf "%s: dyn(%s)" (toJson $key) (include "nearside.cel" (get $ $key))) }}
{{- end -}}
{ {{- join ", " $all -}} }
{{- else if kindIs "slice" . }}
{{- range . }}{{ $all = append $all (printf "dyn(%s)" (include "nearside.cel" .)) }}{{ end -}}
[{{ join ", " $all }}]
{{- else }}
{{- $text := toJson . }}
{{- $text = regexReplaceAll `^"__nearside_int_([a-zA-Z]+)__"$` $text "int(variables.$1)" }}
{{- $text = regexReplaceAll `^"__nearside_([a-zA-Z]+)__"$` $text "variables.$1" }}
{{- regexReplaceAll `__nearside_([a-zA-Z]+)__` $text `" + variables.$1 + "` }}
{{- end }}
{{- end }}

{{- /* Namespaces whose pods are injected, whatever injects. */ -}}
{{- define "nearside.injection.namespaces" -}}
{{- with .Values.injection.namespaceSelector.matchLabels -}}
matchLabels:
  {{- toYaml . | nindent 2 }}
{{ end -}}
matchExpressions:
  - key: kubernetes.io/metadata.name
    operator: NotIn
    values:
      {{- range append .Values.injection.excludedNamespaces .Release.Namespace | uniq }}
      - {{ . }}
      {{- end }}
  {{- with .Values.injection.namespaceSelector.matchExpressions }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- /* Objects of pods to which the policies apply. */ -}}
{{- define "nearside.injection.match" -}}
failurePolicy: {{ .Values.injection.failurePolicy }}
matchConstraints:
  matchPolicy: Equivalent
  resourceRules:
    - apiGroups: [""]
      apiVersions: [v1]
      resources: [pods]
      operations: [CREATE]
      scope: Namespaced
  objectSelector: {}
  namespaceSelector:
    {{- include "nearside.injection.namespaces" . | nindent 4 }}
{{- end }}

{{- /* Whether a pod is injected: the same as isInjected of kube/inject. */ -}}
{{- define "nearside.injection.injected" -}}
- name: annotations
  expression: object.metadata.?annotations.orValue({})
- name: initContainers
  expression: object.spec.?initContainers.orValue([])
- name: containers
  expression: variables.initContainers + object.spec.containers
- name: taken
  expression: variables.containers.exists(c, c.name == 'nearside')
- name: injected
  expression: variables.taken && 'nearside.dev/status' in variables.annotations
{{- end }}

{{- /* What both policies know of a pod: whether it is injected, and every fault. */ -}}
{{- define "nearside.injection.variables" -}}
{{- $settings := include "nearside.settings" . | fromYaml }}
{{- $values := include "nearside.sidecar.values" (dict "settings" $settings "version" .Chart.AppVersion) | fromYaml }}
{{- $rules := include "nearside.sidecar.annotations" . | fromYamlArray }}
{{- $names := list "inject" }}
{{- include "nearside.injection.injected" . }}
- name: hostNetwork
  expression: object.spec.?hostNetwork.orValue(false)
{{- range $rules }}
{{- $names = append $names .name }}
{{- $default := get $values .name | toString | toJson }}
{{- if eq .name "admin-port" }}{{ $default = printf "variables.hostNetwork ? '0' : %s" $default }}{{ end }}
{{- $get := printf "variables.annotations[?'nearside.dev/%s'].orValue(%s)" .name $default }}
- name: {{ ternary "wish" (camelcase .name | untitle) (eq .name "mode") }}
  expression: {{ $get | quote }}
{{- end }}
- name: mode
  expression: "variables.wish == 'auto' ? '{{ include "nearside.sidecar.auto" .Capabilities }}' : variables.wish"
- name: faults
  expression: |-
    !(variables.annotations[?'nearside.dev/inject'].orValue('') in ['true', 'false', ''])
    ? ['annotation nearside.dev/inject is ' + strings.quote(variables.annotations['nearside.dev/inject'].size() > 60 ? variables.annotations['nearside.dev/inject'].substring(0, 60) : variables.annotations['nearside.dev/inject']) + ': want true or false']
    : [
      {{- range $rules }}
      {'name': 'nearside.dev/{{ .name }}', 'pattern': {{ toJson .pattern }}, 'want': {{ toJson .want }}},
      {{- end }}
    ].filter(a, a.name in variables.annotations
      && (variables.annotations[a.name].size() > 600 || !variables.annotations[a.name].matches(a.pattern)))
    .map(a, 'annotation ' + a.name + ' is '
      + strings.quote(variables.annotations[a.name].size() > 60 ? variables.annotations[a.name].substring(0, 60) : variables.annotations[a.name])
      + ': want ' + a.want)
    + variables.annotations.map(k, k).filter(k, k.startsWith('nearside.dev/')
      && !(k in ['nearside.dev/status', 'nearside.dev/{{ join "', 'nearside.dev/" $names }}']))
    .sort().map(k, 'annotation ' + k + ' is not known: want one of {{ join ", " $names }}')
    + (variables.taken ? ['the pod has a container "nearside" of its own: want another name, or no injection'] : [])
    + object.spec.?volumes.orValue([])
    .filter(v, v.name in ['nearside-socket', 'nearside-no-token', 'nearside-nats', 'nearside-config'])
    .map(v, 'the pod has a volume ' + strings.quote(v.name) + ' of its own: want another name')
    + variables.containers
    .filter(c, c.?volumeMounts.orValue([]).exists(m, m.mountPath == '/run/nearside'))
    .map(c, 'container ' + strings.quote(c.name) + ' has a mount of its own at /run/nearside: want another place')
    + (variables.mode != 'native' && !(object.spec.?restartPolicy.orValue('Always') in ['Always', ''])
    ? ['restartPolicy is ' + strings.quote(object.spec.restartPolicy) + ': in mode classic the sidecar would keep the pod from completing; want mode native, which needs Kubernetes 1.29']
    : [])
{{- end }}

{{- /* What is put into a pod: where, and what. JSONPatch objects are only known to mutations. */ -}}
{{- define "nearside.injection.patches" -}}
{{- $settings := include "nearside.settings" . | fromYaml }}
{{- $values := dict "admin" "__nearside_admin__" "admin-port" "__nearside_int_adminPort__" }}
{{- range include "nearside.sidecar.annotations" . | fromYamlArray }}
{{- if ne .name "admin-port" }}{{ $_ := set $values .name (printf "__nearside_%s__" (camelcase .name | untitle)) }}{{ end }}
{{- end }}
{{- $of := dict "values" $values "settings" $settings }}
{{- $config := include "nearside.sidecar.config" $of | fromYaml }}
- name: native
  expression: variables.mode == 'native'
- name: admin
  expression: "variables.adminPort == '0' ? '' : ':' + variables.adminPort"
- name: appVariables
  expression: {{ include "nearside.sidecar.appEnv" . | fromYamlArray | include "nearside.cel" | quote }}
# Where the containers are that get the socket: of the app's init containers only those
# that start after the sidecar.
- name: app
  expression: |-
    object.spec.containers.transformList(i, c, {'path': dyn('/spec/containers/' + string(i)), 'container': dyn(c)})
    + (variables.native ? variables.initContainers.transformList(i, c, {'path': dyn('/spec/initContainers/' + string(i)), 'container': dyn(c)}) : [])
- name: sidecar
  expression: "variables.native ? '/spec/initContainers/0' : '/spec/containers/0'"
- name: told
  expression: |-
    variables.app.map(a,
      (has(a.container.volumeMounts) ? [] : [{'path': dyn(a.path + '/volumeMounts'), 'value': dyn([])}])
      + [{'path': dyn(a.path + '/volumeMounts/-'), 'value': dyn({{ include "nearside.sidecar.mount" . | fromYaml | include "nearside.cel" }})}]
      + (variables.appEnv != 'true' ? [] :
        (has(a.container.env) ? [] : [{'path': dyn(a.path + '/env'), 'value': dyn([])}])
        + variables.appVariables.filter(v, !a.container.?env.orValue([]).exists(e, e.name == v.name))
        .map(v, {'path': dyn(a.path + '/env/-'), 'value': dyn(v)}))
    ).flatten()
- name: added
  expression: |-
    (variables.native && !has(object.spec.initContainers) ? [{'path': dyn('/spec/initContainers'), 'value': dyn([])}] : [])
    + [{'path': dyn(variables.sidecar), 'value': dyn({{ include "nearside.sidecar.container" $of | fromYaml | include "nearside.cel" }})}]
    + (variables.native ? [
      {{- range $key, $part := include "nearside.sidecar.native" $of | fromYaml }}
      {'path': dyn(variables.sidecar + '/{{ $key }}'), 'value': dyn({{ include "nearside.cel" $part }})},
      {{- end }}
    ] : [
      {{- range $key, $part := include "nearside.sidecar.classic" $of | fromYaml }}
      {'path': dyn(variables.sidecar + '/{{ $key }}'), 'value': dyn({{ include "nearside.cel" $part }})},
      {{- end }}
    ])
    + (variables.adminPort == '0' || variables.hostNetwork ? [] : [
      {{- range $key, $part := include "nearside.sidecar.ports" $of | fromYaml }}
      {'path': dyn(variables.sidecar + '/{{ $key }}'), 'value': dyn({{ include "nearside.cel" $part }})},
      {{- end }}
    ])
    + (variables.config == '' ? [] : [
      {{- range $config.env }}
      {'path': dyn(variables.sidecar + '/env/-'), 'value': dyn({{ include "nearside.cel" . }})},
      {{- end }}
      {'path': dyn(variables.sidecar + '/volumeMounts/-'), 'value': dyn({{ include "nearside.cel" $config.mount }})},
    ])
- name: volumes
  expression: |-
    (has(object.spec.volumes) ? [] : [{'path': dyn('/spec/volumes'), 'value': dyn([])}])
    + [
      {{- range include "nearside.sidecar.volumes" $of | fromYamlArray }}
      {'path': dyn('/spec/volumes/-'), 'value': dyn({{ include "nearside.cel" . }})},
      {{- end }}
    ]
    + (variables.config == '' ? [] : [{'path': dyn('/spec/volumes/-'), 'value': dyn({{ include "nearside.cel" $config.volume }})}])
- name: marked
  expression: |-
    (has(object.metadata.labels) ? [] : [{'path': dyn('/metadata/labels'), 'value': dyn({})}])
    + [
      {'path': dyn('/metadata/annotations/nearside.dev~1status'), 'value': dyn({{ include "nearside.sidecar.status" (dict "version" .Chart.AppVersion "mode" "__nearside_mode__") | include "nearside.cel" }})},
      {'path': dyn('/metadata/labels/nearside.dev~1injected'), 'value': dyn('true')},
    ]
{{- end }}
