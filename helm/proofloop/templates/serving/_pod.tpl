{{/* The pod of a model server. Takes (dict "root" $ "server" server "command" list "leads" bool). */}}
{{- define "proofloop.serverPod" -}}
{{- $serving := .server.serving }}
{{- $kind := include "proofloop.kebab" .server.role | printf "%s-model" }}
metadata:
  labels:
    {{- include "proofloop.serverSelector" . | nindent 4 }}
    proofloop/serves: model
    {{- if .leads }}
    proofloop/answers: {{ .server.role }}
    {{- end }}
  annotations:
    proofloop/version: {{ .server.version | quote }}
    proofloop/settings: {{ include "proofloop.serverFile" . | sha256sum }}
spec:
  serviceAccountName: {{ include "proofloop.fullname" .root }}-{{ $kind }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  {{- include "proofloop.pullSecrets" .root | nindent 2 }}
  securityContext: {{- include "proofloop.podSecurity" .root | nindent 4 }}
  # Above the longest call: Triton finishes what runs.
  terminationGracePeriodSeconds: {{ add (int .root.Values.broker.longestCallSeconds) 60 }}
  {{- with $serving.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with $serving.runtimeClassName }}
  runtimeClassName: {{ . }}
  {{- end }}
  containers:
    - name: triton
      image: {{ include "proofloop.image" (dict "root" .root "repository" $serving.image.repository "tag" $serving.image.tag) }}
      imagePullPolicy: {{ .root.Values.image.pullPolicy }}
      {{- with .command }}
      command: {{- toJson . | nindent 8 }}
      {{- end }}
      env: {{- include "proofloop.env" (merge (deepCopy $serving.env) (include "proofloop.serverSettings" . | fromYaml)) | nindent 8 }}
      {{- if .leads }}
      ports:
        - { name: http, containerPort: 8000 }
        - { name: grpc, containerPort: 8001 }
        - { name: metrics, containerPort: 8002 }
      startupProbe: # the first load of a large model can take an hour
        httpGet: { path: /v2/health/ready, port: http }
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: {{ divf $serving.startupSeconds 10 | ceil | int }}
      livenessProbe:
        httpGet: { path: /v2/health/live, port: http }
        periodSeconds: 20
        timeoutSeconds: 10
        failureThreshold: 6
      readinessProbe:
        httpGet: { path: /v2/health/ready, port: http }
        periodSeconds: 10
        timeoutSeconds: 5
      lifecycle:
        preStop: # clients forget its address before it stops to listen
          sleep: { seconds: 15 }
      {{- end }}
      resources:
        requests:
          {{- toYaml $serving.resources.requests | nindent 10 }}
          {{- if $serving.gpus }}
          {{ $serving.gpuResource }}: {{ $serving.gpus }}
          {{- end }}
        limits:
          {{- toYaml $serving.resources.limits | nindent 10 }}
          {{- if $serving.gpus }}
          {{ $serving.gpuResource }}: {{ $serving.gpus }}
          {{- end }}
      securityContext: {{- include "proofloop.containerSecurity" .root | nindent 8 }}
      volumeMounts:
        {{- include "proofloop.mounts" .root | nindent 8 }}
        - { name: settings, mountPath: /etc/proofloop/serving, readOnly: true }
        - { name: shared-memory, mountPath: /dev/shm }
        - { name: scratch, mountPath: /scratch }
        {{- if or $serving.weights.existingClaim $serving.weights.hostPath }}
        - { name: weights, mountPath: /weights, readOnly: true }
        {{- end }}
        {{- if $serving.tls.secret }}
        - { name: certificate, mountPath: /etc/proofloop/tls, readOnly: true }
        {{- end }}
  volumes:
    {{- include "proofloop.volumes" .root | nindent 4 }}
    - name: settings
      configMap:
        name: {{ .server.name }}
    - name: tmp
      emptyDir: {}
    - name: shared-memory
      emptyDir: { medium: Memory, sizeLimit: {{ $serving.sharedMemory }} }
    - name: scratch
      emptyDir: { sizeLimit: {{ $serving.weights.scratch }} }
    {{- with $serving.weights.existingClaim }}
    - name: weights
      persistentVolumeClaim:
        claimName: {{ . }}
        readOnly: true
    {{- end }}
    {{- with $serving.weights.hostPath }}
    - name: weights
      hostPath: { path: {{ . }}, type: Directory }
    {{- end }}
    {{- with $serving.tls.secret }}
    - name: certificate
      secret:
        secretName: {{ . }}
        defaultMode: 0440
    {{- end }}
  {{- with $serving.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $serving.tolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $serving.affinity }}
  affinity: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{- define "proofloop.serverSelector" -}}
{{- $component := include "proofloop.kebab" .server.role | printf "%s-model" -}}
{{ include "proofloop.selector" (dict "root" .root "component" $component) }}
proofloop/server: {{ .server.name }}
{{- end }}

{{/* What a server is told by environment. */}}
{{- define "proofloop.serverSettings" -}}
{{ include "proofloop.settings" .root }}
PROOFLOOP_MODEL_VERSION: {{ .server.version | quote }}
PROOFLOOP_CACHE: /scratch
HF_HOME: /scratch/huggingface
{{- end }}

{{/* Its file model.yaml. */}}
{{- define "proofloop.serverFile" -}}
engine: {{ .server.serving.engine }}
{{- with .server.serving.settings }}
{{ toYaml . }}
{{- end }}
{{- end }}
