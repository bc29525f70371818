{{- define "fedaq.labels" -}}
app.kubernetes.io/name: fedaq
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "fedaq.server" -}}
{{ .Release.Name }}-server
{{- end -}}

{{- define "fedaq.image" -}}
image: {{ printf "%s:%s" .Values.image.repository .Values.image.tag | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{- define "fedaq.pod" -}}
automountServiceAccountToken: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- /* A secret as a folder of certificates: (dict "name" "certs" "secret" ... "role" "server") */ -}}
{{- define "fedaq.certificates" -}}
- name: {{ .name }}
  secret:
    secretName: {{ .secret }}
    defaultMode: 0440
    items:
      - {key: tls.crt, path: {{ .role }}.crt}
      - {key: tls.key, path: {{ .role }}.key}
      - {key: ca.crt, path: ca.crt}
{{- end -}}

{{- define "fedaq.settings" -}}
{{- range $name, $value := . }}
- {{ printf "--set=%s=%v" $name $value | quote }}
{{- end }}
{{- end -}}

{{- /* It needs a process, and therefore seconds. */ -}}
{{- define "fedaq.probe" -}}
exec:
  command: [fedaq, health, "localhost:50051", --tls, /certs/server]
periodSeconds: 30
timeoutSeconds: 20
{{- end -}}

{{- define "fedaq.claim" -}}
accessModes: [ReadWriteOnce]
{{- with .className }}
storageClassName: {{ . }}
{{- end }}
resources: {requests: {storage: {{ .size }}}}
{{- end -}}
