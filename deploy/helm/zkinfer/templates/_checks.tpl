{{/* What the schema cannot say: values that need each other. Each message names the value and the fix. */}}
{{- define "zkinfer.check" -}}
{{- $v := .Values -}}
{{- if and (not $v.tls.existingSecret) (not $v.tls.insecurePlaintext) -}}
{{- fail "tls.existingSecret is empty: name a Secret with tls.crt and tls.key, or set tls.insecurePlaintext behind a proxy that ends TLS" -}}
{{- end -}}
{{- if and $v.tls.existingSecret $v.tls.insecurePlaintext -}}
{{- fail "tls.existingSecret and tls.insecurePlaintext exclude each other: leave one out" -}}
{{- end -}}
{{- if not (or $v.access.keys.existingSecret $v.access.tokens.existingConfigMap $v.access.tokens.jwksUrl $v.access.certificates.existingConfigMap) -}}
{{- fail "nobody could call: set access.keys.existingSecret, access.tokens.existingConfigMap, access.tokens.jwksUrl or access.certificates.existingConfigMap" -}}
{{- end -}}
{{- if and $v.access.tokens.existingConfigMap $v.access.tokens.jwksUrl -}}
{{- fail "access.tokens.existingConfigMap and access.tokens.jwksUrl exclude each other" -}}
{{- end -}}
{{- if and (or $v.access.tokens.existingConfigMap $v.access.tokens.jwksUrl) (not (and $v.access.tokens.issuer $v.access.tokens.audience)) -}}
{{- fail "access.tokens needs issuer and audience" -}}
{{- end -}}
{{- if and $v.access.certificates.existingConfigMap $v.tls.insecurePlaintext -}}
{{- fail "access.certificates needs TLS in the pods: set tls.existingSecret instead of tls.insecurePlaintext" -}}
{{- end -}}
{{- if and $v.ingress.enabled (not $v.ingress.host) -}}
{{- fail "ingress.host is empty: give the name that clients use" -}}
{{- end -}}
{{- if and $v.gateway.enabled (not $v.gateway.parentRefs) -}}
{{- fail "gateway.parentRefs is empty: name the Gateway" -}}
{{- end -}}
{{- if and $v.gateway.backendTLS.caConfigMap (not $v.gateway.backendTLS.hostname) -}}
{{- fail "gateway.backendTLS.hostname is empty: give a name in the pods' certificate" -}}
{{- end -}}
{{- if not $v.standalone.enabled -}}
{{- include "zkinfer.checkCluster" . -}}
{{- end -}}
{{- end -}}

{{- define "zkinfer.checkCluster" -}}
{{- $v := .Values -}}
{{- if not $v.database.existingSecret -}}
{{- fail "database.existingSecret is empty: name a Secret with the URL of PostgreSQL, or set standalone.enabled" -}}
{{- end -}}
{{- if not $v.artifacts.url -}}
{{- fail "artifacts.url is empty: give a bucket such as s3://bucket/prefix, or set standalone.enabled" -}}
{{- end -}}
{{- if not (and $v.workers.tls.serverSecret $v.workers.tls.clientSecret) -}}
{{- fail "workers.tls.serverSecret or workers.tls.clientSecret is empty: workers reach the api over mTLS, see `zkinferd certs`" -}}
{{- end -}}
{{- $names := list -}}
{{- range $v.workers.pools -}}
{{- $pool := include "zkinfer.pool" (dict "root" $ "pool" .) | fromJson -}}
{{- if has $pool.name $names -}}
{{- fail (printf "workers.pools has two pools named %s" $pool.name) -}}
{{- end -}}
{{- $names = append $names $pool.name -}}
{{- if and (eq $pool.device "cpu") (gt (int $pool.gpus) 0) -}}
{{- fail (printf "pool %s: device is cpu, but gpus is not 0" $pool.name) -}}
{{- end -}}
{{- if and $pool.autoscaling.enabled (not $v.keda.serverAddress) -}}
{{- fail (printf "pool %s scales, but keda.serverAddress is empty: give the URL of Prometheus" $pool.name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
