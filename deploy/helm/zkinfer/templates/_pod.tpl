{{/* Pieces of pods. Each template takes a dict with `root` and what it says. */}}

{{/* root, serviceAccount (if not the release's). Service links are off: Kubernetes would set ZKINFER_* variables of its own, which the programs would read as options. */}}
{{- define "zkinfer.podBasics" -}}
serviceAccountName: {{ default (include "zkinfer.serviceAccount" .root) .serviceAccount }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- end -}}

{{- define "zkinfer.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end -}}

{{/* root, part (values of a component), component, kind. Where its pods may run. */}}
{{- define "zkinfer.placement" -}}
{{- with .part.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .part.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .part.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with include "zkinfer.priorityClass" (dict "root" .root "kind" .kind) }}
priorityClassName: {{ . }}
{{- end }}
{{- if .root.Values.topologySpread }}
topologySpreadConstraints:
  {{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - topologyKey: {{ $key }}
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "zkinfer.selector" $ | nindent 8 }}
  {{- end }}
{{- end }}
{{- end -}}

{{/*
pause (none if left out), drain. Until a pod is killed: more than what a program may take by itself, which is its pause, its drain, and at most 35 seconds
after that: a device's process 15 seconds until it is killed, 5 until it has ended, 5 until its session is closed, and the service 10 until it cuts what is
left, or the service twice 10; and 5 for the last spans.
*/}}
{{- define "zkinfer.grace" -}}
{{- add (default 0 .pause) .drain 45 -}}
{{- end -}}

{{/* root, part, drain. Options that all programs have, and those of the user. */}}
{{- define "zkinfer.environment" -}}
- name: ZKINFER_HTTP_LISTEN
  value: 0.0.0.0:9464
- name: ZKINFER_HTTP_INSECURE
  value: "true"
- name: ZKINFER_DRAIN_SECONDS
  value: {{ .drain | quote }}
- name: ZKINFER_LOG
  value: {{ .root.Values.log.filter | quote }}
- name: ZKINFER_LOG_JSON
  value: {{ .root.Values.log.json | quote }}
{{- with .root.Values.tracing.otlpEndpoint }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ . | quote }}
- name: ZKINFER_TRACE_DETAIL
  value: {{ $.root.Values.tracing.detail }}
{{- end }}
{{- with .part.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Name of a worker, or of a service that is one: its pod's, which the dashboard and the events of jobs then tell. */}}
{{- define "zkinfer.workerName" -}}
- name: ZKINFER_WORKER_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
{{- end -}}

{{/* root. The database's URL. */}}
{{- define "zkinfer.databaseEnvironment" -}}
- name: ZKINFER_DATABASE
  valueFrom:
    secretKeyRef:
      name: {{ .root.Values.database.existingSecret }}
      key: {{ .root.Values.database.key }}
{{- end -}}

{{/* root. Database, artifacts and limits of api and scheduler. */}}
{{- define "zkinfer.storeEnvironment" -}}
{{ include "zkinfer.databaseEnvironment" . }}
- name: ZKINFER_ARTIFACTS
  value: {{ .root.Values.artifacts.url | quote }}
{{- range $name, $value := .root.Values.artifacts.env }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- include "zkinfer.encryptionEnvironment" . }}
{{- end -}}

{{/* root. The ports that policies let webhooks out to, on a new line, if there are policies: of whoever takes webhooks, or sends them. */}}
{{- define "zkinfer.webhooksEnvironment" -}}
{{- with .root.Values.networkPolicy }}
{{- if and .enabled .webhooksPorts }}
- name: ZKINFER_WEBHOOK_PORTS
  value: {{ join "," .webhooksPorts | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/* root. How long jobs are kept, on a new line, if not for good: of whoever keeps time. */}}
{{- define "zkinfer.retentionEnvironment" -}}
{{- with .root.Values.jobRetention }}
- name: ZKINFER_JOB_RETENTION
  value: {{ . | quote }}
{{- end }}
{{- end -}}

{{/* root. The keys of artifacts, on a new line, if there are any. */}}
{{- define "zkinfer.encryptionEnvironment" -}}
{{- with .root.Values.artifacts.encryption }}
{{- if .existingSecret }}
- name: ZKINFER_ARTIFACT_KEY
  value: /etc/zkinfer/artifacts/{{ .key }}
{{- end }}
{{- end }}
{{- end -}}

{{/* root. The source of the volume with the keys of artifacts, if there are any; as YAML. Owned by root, and readable by the pod's group only. */}}
{{- define "zkinfer.encryptionSources" -}}
{{- with .root.Values.artifacts.encryption.existingSecret }}
artifacts:
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- end -}}

{{/* root. TLS, authentication and limits of the public listener. */}}
{{- define "zkinfer.accessEnvironment" -}}
- name: ZKINFER_LIMITS
  value: /etc/zkinfer/limits/limits.json
{{- if .root.Values.tls.insecurePlaintext }}
- name: ZKINFER_INSECURE_PLAINTEXT
  value: "true"
{{- else }}
- name: ZKINFER_TLS_CERT
  value: /etc/zkinfer/tls/tls.crt
- name: ZKINFER_TLS_KEY
  value: /etc/zkinfer/tls/tls.key
{{- end }}
{{- with .root.Values.access }}
{{- if .keys.existingSecret }}
- name: ZKINFER_KEYS
  value: /etc/zkinfer/keys/{{ .keys.key }}
{{- end }}
{{- if or .tokens.existingConfigMap .tokens.jwksUrl }}
{{- if .tokens.jwksUrl }}
- name: ZKINFER_JWKS_URL
  value: {{ .tokens.jwksUrl | quote }}
{{- else }}
- name: ZKINFER_JWT_KEYS
  value: /etc/zkinfer/tokens/{{ .tokens.key }}
{{- end }}
- name: ZKINFER_JWT_ISSUER
  value: {{ .tokens.issuer | quote }}
- name: ZKINFER_JWT_AUDIENCE
  value: {{ .tokens.audience | quote }}
- name: ZKINFER_JWT_TENANT_CLAIM
  value: {{ .tokens.tenantClaim | quote }}
- name: ZKINFER_JWT_SCOPE_CLAIM
  value: {{ .tokens.scopeClaim | quote }}
{{- end }}
{{- if .certificates.existingConfigMap }}
- name: ZKINFER_TLS_CLIENT_CA
  value: /etc/zkinfer/certificates/ca.crt
- name: ZKINFER_TLS_CLIENT_MAP
  value: /etc/zkinfer/certificates/map
{{- if .certificates.optional }}
- name: ZKINFER_TLS_CLIENT_OPTIONAL
  value: "true"
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* root. A name and the source of each volume with credentials; as YAML, name: source. */}}
{{- define "zkinfer.accessSources" -}}
limits:
  configMap:
    name: {{ include "zkinfer.fullname" .root }}-limits
{{- with .root.Values.tls.existingSecret }}
tls:
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- with .root.Values.access.keys.existingSecret }}
keys:
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- with .root.Values.access.tokens.existingConfigMap }}
tokens:
  configMap:
    name: {{ . }}
{{- end }}
{{- with .root.Values.access.certificates.existingConfigMap }}
certificates:
  configMap:
    name: {{ . }}
{{- end }}
{{- end -}}

{{/* sources (a map from names), part. Folders are mounted, not files: a changed file would not be seen in those. */}}
{{- define "zkinfer.volumes" -}}
- name: tmp
  emptyDir:
    sizeLimit: 1Gi
{{- range $name, $source := .sources }}
- name: {{ $name }}
  {{- toYaml $source | nindent 2 }}
{{- end }}
{{- with .part.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* sources, part */}}
{{- define "zkinfer.mounts" -}}
- name: tmp
  mountPath: /tmp
{{- range $name, $_ := .sources }}
- name: {{ $name }}
  mountPath: /etc/zkinfer/{{ $name }}
  readOnly: true
{{- end }}
{{- with .part.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* startupSeconds. Over HTTP, since the kubelet's gRPC probes know no TLS. Liveness is the health service `live`, readiness is `ready`. */}}
{{- define "zkinfer.probes" -}}
startupProbe:
  httpGet: {path: /livez, port: http}
  periodSeconds: 5
  timeoutSeconds: 3
  failureThreshold: {{ div (add .startupSeconds 4) 5 }}
livenessProbe:
  httpGet: {path: /livez, port: http}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: http}
  periodSeconds: 5
  timeoutSeconds: 3
  failureThreshold: 2
{{- end -}}
