{{/* Names, labels, and what every pod has alike. */}}
{{- define "gerbang.name" -}}
{{- if contains "gerbang" .Release.Name }}{{ .Release.Name }}{{ else }}{{ .Release.Name }}-gerbang{{ end -}}
{{- end }}

{{- define "gerbang.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* Of one component: (dict "root" $ "component" "gateway") */}}
{{- define "gerbang.selector" -}}
app.kubernetes.io/name: gerbang
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "gerbang.labels" -}}
{{ include "gerbang.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end }}

{{- define "gerbang.pod" -}}
automountServiceAccountToken: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets: {{ toJson . }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: { type: RuntimeDefault }
{{- end }}

{{- define "gerbang.container" -}}
image: {{ include "gerbang.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: { drop: [ALL] }
{{- end }}

{{/* Volumes of one component's secrets, configuration and /tmp. The admin service reads the gateway's file, too: [docs] gateway_config. */}}
{{- define "gerbang.volumes" -}}
- name: secrets
  secret:
    secretName: {{ .root.Values.secret }}
    defaultMode: 0440
    items: {{ index .root.Values.secrets .component | toJson }}
- name: config
  configMap:
    name: {{ .root.Values.config.existing | default (include "gerbang.name" .root) }}
    items: [{ key: {{ .component }}.toml, path: {{ .component }}.toml }{{ if eq .component "admin" }}, { key: gateway.toml, path: gateway.toml }{{ end }}]
- name: tmp
  emptyDir: { medium: Memory, sizeLimit: 16Mi }
{{- end }}

{{- define "gerbang.mounts" -}}
- { name: config, mountPath: /etc/gerbang/config, readOnly: true }
- { name: secrets, mountPath: /etc/gerbang/secrets, readOnly: true }
- { name: tmp, mountPath: /tmp }
{{- end }}
