{{/* Names and labels. Each template takes the root context, or a dict with `root` and what it says. */}}

{{- define "zkinfer.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 31 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 31 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* root, component. What selectors hold: it must never change between versions. */}}
{{- define "zkinfer.selector" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end -}}

{{/* root, component */}}
{{- define "zkinfer.labels" -}}
{{ include "zkinfer.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "zkinfer.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "zkinfer.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* root, device: programs that drive GPUs are another image. */}}
{{- define "zkinfer.image" -}}
{{- $image := .root.Values.image -}}
{{- $tag := default .root.Chart.AppVersion $image.tag -}}
{{- if ne .device "cpu" -}}
{{- $tag = default (printf "%s-cuda" $tag) $image.cudaTag -}}
{{- end -}}
{{- printf "%s:%s" $image.repository $tag -}}
{{- end -}}

{{/* base, over: one map over the other, as JSON. Unlike mergeOverwrite, false, 0 and "" count too. */}}
{{- define "zkinfer.merged" -}}
{{- $merged := deepCopy .base -}}
{{- range $key, $value := .over -}}
{{- if and (kindIs "map" $value) (kindIs "map" (get $merged $key)) -}}
{{- $_ := set $merged $key (include "zkinfer.merged" (dict "base" (get $merged $key) "over" $value) | fromJson) -}}
{{- else -}}
{{- $_ := set $merged $key $value -}}
{{- end -}}
{{- end -}}
{{- toJson $merged -}}
{{- end -}}

{{/* root, pool. What a pool has: the defaults, and over them what it says. As JSON, for fromJson. */}}
{{- define "zkinfer.pool" -}}
{{- $pool := include "zkinfer.merged" (dict "base" .root.Values.workers.defaults "over" .pool) | fromJson -}}
{{- $gpus := int $pool.gpus -}}
{{- if not $pool.device -}}
{{- $_ := set $pool "device" (ternary (join "," (until $gpus)) "cpu" (gt $gpus 0)) -}}
{{- end -}}
{{- $_ := set $pool "fullname" (printf "%s-worker-%s" (include "zkinfer.fullname" .root) $pool.name) -}}
{{- toJson $pool -}}
{{- end -}}

{{/* root, kind ("service" or "workers") */}}
{{- define "zkinfer.priorityClass" -}}
{{- $classes := .root.Values.priorityClasses -}}
{{- if $classes.create -}}
{{- printf "%s-%s" (include "zkinfer.fullname" .root) .kind -}}
{{- else -}}
{{- ternary $classes.serviceName $classes.workersName (eq .kind "service") -}}
{{- end -}}
{{- end -}}
