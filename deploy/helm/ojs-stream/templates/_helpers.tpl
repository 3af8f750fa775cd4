{{/* The name of everything: the release's, with the chart's behind it unless it is in there. */}}
{{- define "ojs-stream.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "ojs-stream.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "ojs-stream.labels" -}}
{{ include "ojs-stream.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "ojs-stream.secret" -}}
{{- .Values.secret.existing | default (include "ojs-stream.name" .) -}}
{{- end -}}

{{/* Settings as strings. Helm reads whole numbers as floats: through JSON a large one does not become 4e+06. */}}
{{- define "ojs-stream.settings" -}}
{{- range $name, $value := . }}
{{ $name }}: {{ kindIs "string" $value | ternary $value (toJson $value) | quote }}
{{- end }}
{{- end -}}
