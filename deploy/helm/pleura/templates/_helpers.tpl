{{/* The name that every object begins with: that of the release, with the chart's where it is another. */}}
{{- define "pleura.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Labels that never change: (list root part), part empty for what belongs to all. */}}
{{- define "pleura.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ $root.Chart.Name }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
{{- with index . 1 }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end -}}

{{- define "pleura.labels" -}}
{{- $root := index . 0 -}}
{{ include "pleura.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | quote }}
{{- end -}}

{{/* (list root image): the image, with the repository and tag of `image` where it has any. */}}
{{- define "pleura.image" -}}
{{- $root := index . 0 -}}
{{- $image := merge (dict) (index . 1) $root.Values.image -}}
{{- $repository := required "image.repository: push the image to a registry of yours and name it there; no public one has it" $image.repository -}}
{{- if $image.digest -}}
{{ printf "%s@%s" $repository $image.digest | quote }}
{{- else -}}
{{ printf "%s:%s" $repository (default $root.Chart.AppVersion $image.tag) | quote }}
{{- end -}}
{{- end -}}

{{- define "pleura.secretName" -}}
{{- if .Values.secret.existing -}}
{{ .Values.secret.existing }}
{{- else if .Values.secret.values -}}
{{ include "pleura.fullname" . }}
{{- end -}}
{{- end -}}

{{/* The variables that say which database: all that the Job of the migrations needs. */}}
{{- define "pleura.databaseEnv" -}}
{{- $files := .Values.secret.settings -}}
{{- if hasKey $files "database.url" }}
{{- if .Values.database.url }}{{ fail "database.url and secret.settings have `database.url` both: give it once" }}{{ end }}
{{- else }}
- {name: PLEURA_DATABASE__URL, value: {{ required "database.url: name the PostgreSQL that the node uses" .Values.database.url | quote }}}
{{- end }}
{{- range $setting, $key := $files }}
{{- if hasPrefix "database." $setting }}
- {name: {{ include "pleura.fileVariable" $setting }}, value: {{ printf "/run/secrets/pleura/%s" $key | quote }}}
{{- end }}
{{- end }}
{{- end -}}

{{/* database.password -> PLEURA_DATABASE__PASSWORD_FILE */}}
{{- define "pleura.fileVariable" -}}
PLEURA_{{ . | replace "." "__" | upper }}_FILE
{{- end -}}

{{/* The variables of every part; settings of the file are below them. */}}
{{- define "pleura.env" -}}
{{- $files := .Values.secret.settings -}}
- {name: PLEURA_CONFIG, value: /etc/pleura/pleura.toml}
- {name: PLEURA_STORE__FOLDER, value: /var/lib/pleura}
{{ include "pleura.databaseEnv" . | trim }}
{{- if not (hasKey $files "broker.url") }}
- {name: PLEURA_BROKER__URL, value: {{ required "broker.url: name the Redis that the node uses" .Values.broker.url | quote }}}
{{- end }}
{{- range $setting, $key := $files }}
{{- if not (hasPrefix "database." $setting) }}
- {name: {{ include "pleura.fileVariable" $setting }}, value: {{ printf "/run/secrets/pleura/%s" $key | quote }}}
{{- end }}
{{- end }}
- {name: PLEURA_LISTENER__TRANSPORT, value: {{ .Values.listener.transport }}}
- {name: PLEURA_LISTENER__PORT, value: "11112"}
- {name: PLEURA_LISTENER__TLS_PORT, value: "2762"}
- {name: PLEURA_ADMIN__PORT, value: "8080"}
- {name: PLEURA_HL7__ENABLED, value: {{ .Values.hl7.enabled | quote }}}
- {name: PLEURA_HL7__PORT, value: "2575"}
- {name: PLEURA_DICOMWEB__ENABLED, value: {{ .Values.dicomweb.enabled | quote }}}
- {name: PLEURA_DICOMWEB__PORT, value: "8043"}
{{- with .Values.admin.trustedProxies }}
- {name: PLEURA_ADMIN__TRUSTED_PROXIES, value: {{ toJson . | quote }}}
{{- end }}
{{- end -}}

{{- define "pleura.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* How many pods of a part run: (list root replicas). */}}
{{- define "pleura.replicas" -}}
{{- if (index . 0).Values.stopped }}0{{ else }}{{ index . 1 }}{{ end -}}
{{- end -}}

{{/*
The template of a part's pods. Keys: root, part (component, and its key in the values unless `values` is another), args,
and optional env (more variables), image, container (ports and probes, YAML).
*/}}
{{- define "pleura.podTemplate" -}}
{{- $root := .root -}}
{{- $values := index $root.Values (default .part .values) -}}
metadata:
  labels: {{- include "pleura.labels" (list $root .part) | nindent 4 }}
  annotations:
    checksum/config: {{ $root.Values.config | sha256sum }}
    checksum/secret: {{ $root.Values.secret | toJson | sha256sum }}
spec:
  automountServiceAccountToken: false
  # The variables of Services are nothing that Pleura reads.
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ $values.terminationGracePeriodSeconds }}
  securityContext: {{- toYaml $root.Values.podSecurityContext | nindent 4 }}
  {{- with $root.Values.imagePullSecrets }}
  imagePullSecrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.tolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.affinity }}
  affinity: {{- toYaml . | nindent 4 }}
  {{- end }}
  # Of several pods of a part one is lost with a machine, if there are others.
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels: {{- include "pleura.selector" (list $root .part) | nindent 10 }}
  containers:
    - name: {{ .part }}
      image: {{ include "pleura.image" (list $root (default dict .image)) }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      args: {{ toJson .args }}
      env:
        {{- include "pleura.env" $root | nindent 8 }}
        {{- with .env }}
        {{- . | nindent 8 }}
        {{- end }}
        {{- range $name, $value := merge (dict) $values.env $root.Values.env }}
        - {name: {{ $name }}, value: {{ $value | quote }}}
        {{- end }}
      securityContext: {{- include "pleura.securityContext" $root | nindent 8 }}
      resources: {{- toYaml $values.resources | nindent 8 }}
      {{- with .container }}
      {{- . | nindent 6 }}
      {{- end }}
      volumeMounts:
        - {name: config, mountPath: /etc/pleura, readOnly: true}
        - {name: store, mountPath: /var/lib/pleura}
        - {name: tmp, mountPath: /tmp}
        {{- if include "pleura.secretName" $root }}
        - {name: secrets, mountPath: /run/secrets/pleura, readOnly: true}
        {{- end }}
        {{- if $root.Values.tls.existingSecret }}
        - {name: tls, mountPath: /run/tls, readOnly: true}
        {{- end }}
        {{- with $root.Values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    - name: config
      configMap: {name: {{ include "pleura.fullname" $root }}}
    - name: store
      persistentVolumeClaim: {claimName: {{ default (include "pleura.fullname" $root) $root.Values.store.existingClaim }}}
    - name: tmp
      emptyDir: {}
    {{- with include "pleura.secretName" $root }}
    - name: secrets
      secret: {secretName: {{ . }}, defaultMode: 0440}
    {{- end }}
    {{- with $root.Values.tls.existingSecret }}
    - name: tls
      secret: {secretName: {{ . }}, defaultMode: 0440}
    {{- end }}
    {{- with $root.Values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{/* A Deployment: the keys of pleura.podTemplate, and replicas (nil: an autoscaler says how many). */}}
{{- define "pleura.deployment" -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "pleura.fullname" .root }}-{{ .part }}
  labels: {{- include "pleura.labels" (list .root .part) | nindent 4 }}
spec:
  {{- if ne (toString .replicas) "scaled" }}
  replicas: {{ include "pleura.replicas" (list .root .replicas) }}
  {{- end }}
  # All parts of a node have one version, so the former pods end before new ones start.
  strategy: {type: Recreate}
  selector:
    matchLabels: {{- include "pleura.selector" (list .root .part) | nindent 6 }}
  template: {{- include "pleura.podTemplate" . | nindent 4 }}
{{- end -}}

{{/* What a Service that is reached from outside says of itself. */}}
{{- define "pleura.serviceSpec" -}}
type: {{ .type }}
{{- if ne .type "ClusterIP" }}
externalTrafficPolicy: {{ .externalTrafficPolicy }}
{{- end }}
{{- with .loadBalancerIP }}
loadBalancerIP: {{ . }}
{{- end }}
{{- end -}}

{{/* The Ingress of a part, if it is enabled: root, part, port (its name in the Service) and path. */}}
{{- define "pleura.ingress" -}}
{{- $ := . -}}
{{- with (index .root.Values .part).ingress }}
{{- if .enabled }}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: {{ include "pleura.fullname" $.root }}-{{ $.part }}
  labels: {{- include "pleura.labels" (list $.root $.part) | nindent 4 }}
  {{- with .annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- with .className }}
  ingressClassName: {{ . }}
  {{- end }}
  tls:
    - hosts: [{{ required (printf "%s.ingress.host: give its name" $.part) .host | quote }}]
      secretName: {{ required (printf "%s.ingress.tlsSecret: by HTTPS alone, for passwords and tokens are sent here" $.part) .tlsSecret | quote }}
  rules:
    - host: {{ .host | quote }}
      http:
        paths:
          - path: {{ $.path }}
            pathType: Prefix
            backend: {service: {name: {{ include "pleura.fullname" $.root }}-{{ $.part }}, port: {name: {{ $.port }}}}}
{{- end }}
{{- end }}
{{- end -}}
