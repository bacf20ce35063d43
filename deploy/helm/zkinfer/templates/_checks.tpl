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
{{- if and $v.networkPolicy.enabled (not $v.networkPolicy.webhooksPorts) (ne 0 (int (dig "webhooks_per_tenant" 16 $v.limits))) -}}
{{- fail "networkPolicy.webhooksPorts is empty: webhooks would be taken and never told; name ports, or set limits.webhooks_per_tenant to 0" -}}
{{- end -}}
{{- if not $v.standalone.enabled -}}
{{- include "zkinfer.checkCluster" . -}}
{{- end -}}
{{- end -}}

{{/* A quantity of Kubernetes. Its whole part, as a number. */}}
{{- define "zkinfer.wholeQuantity" -}}
{{- $binary := dict "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "Pi" 1125899906842624 "Ei" 1152921504606846976 -}}
{{- $decimal := dict "m" 0.001 "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "P" 1000000000000000 "E" 1000000000000000000 -}}
{{- $number := regexFind "^[0-9.]+" . -}}
{{- mulf (float64 $number) (get (merge $binary $decimal) (trimPrefix $number .)) | int64 -}}
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
{{- $uploads := dig "upload_disk_bytes" 8589934592 $v.limits | int64 -}}
{{- if le (include "zkinfer.wholeQuantity" $v.api.uploadsSize | int64) $uploads -}}
{{- fail (printf "api.uploadsSize is %s: it must be more than limits.upload_disk_bytes, %d bytes, or the node evicts the pod" $v.api.uploadsSize $uploads) -}}
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
