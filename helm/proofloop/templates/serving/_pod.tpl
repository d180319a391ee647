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
    proofloop/settings: {{ include "proofloop.serverFiles" . | sha256sum }}
spec:
  serviceAccountName: {{ include "proofloop.fullname" .root }}-{{ $kind }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  {{- include "proofloop.pullSecrets" .root | nindent 2 }}
  securityContext: {{- include "proofloop.podSecurity" .root | nindent 4 }}
  # Above the longest call: start.sh waits that long for running calls.
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
      {{- if .leads }}
      args:
        - --load-model={{ include "proofloop.tritonName" .server.version }}
        {{- if $serving.tls.secret }}
        - --grpc-use-ssl=true
        - --grpc-server-cert=/etc/proofloop/tls/tls.crt
        - --grpc-server-key=/etc/proofloop/tls/tls.key
        {{- end }}
      {{- end }}
      env:
        {{- include "proofloop.env" (merge ($serving.env | default dict | deepCopy) (include "proofloop.serverSettings" . | fromYaml)) | nindent 8 }}
        - name: PROOFLOOP_POD_IP
          valueFrom:
            fieldRef: { fieldPath: status.podIP }
        - name: PROOFLOOP_TRITON_KEY # if the secret has one, loading and unloading models needs it
          valueFrom:
            secretKeyRef: { name: {{ .root.Values.secrets.existingSecret }}, key: proofloop_triton_key, optional: true }
      {{- if .leads }}
      ports:
        - { name: grpc, containerPort: 8001 }
        - { name: metrics, containerPort: 8002 }
      # Triton opens its ports once the model is loaded. The probes use the metrics page: its HTTP interface is off, and
      # Kubernetes' gRPC probes have no TLS.
      startupProbe: # the first load of a large model can take an hour
        httpGet: { path: /metrics, port: metrics }
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: {{ divf $serving.startupSeconds 10 | ceil | int }}
        terminationGracePeriodSeconds: 60 # no call runs yet
      livenessProbe:
        httpGet: { path: /metrics, port: metrics }
        periodSeconds: 20
        timeoutSeconds: 10
        failureThreshold: 6
        terminationGracePeriodSeconds: 60 # else a hanging server would hang for as long as the longest call
      readinessProbe:
        httpGet: { path: /metrics, port: metrics }
        periodSeconds: 10
        timeoutSeconds: 5
      lifecycle:
        preStop: # clients drop its address before it stops listening
          sleep: { seconds: 15 }
      {{- end }}
      {{- $gpus := ternary (dict $serving.gpuResource $serving.gpus) dict (gt (int $serving.gpus) 0) }}
      resources:
        requests: {{- merge (deepCopy $gpus) ($serving.resources.requests | default dict) | toYaml | nindent 10 }}
        limits: {{- merge (deepCopy $gpus) ($serving.resources.limits | default dict) | toYaml | nindent 10 }}
      securityContext: {{- include "proofloop.containerSecurity" .root | nindent 8 }}
      volumeMounts:
        {{- include "proofloop.mounts" .root | nindent 8 }}
        - { name: models, mountPath: /etc/proofloop/models, readOnly: true }
        - { name: settings, mountPath: /etc/proofloop/serving, readOnly: true }
        - { name: shared-memory, mountPath: /dev/shm }
        - { name: scratch, mountPath: /scratch }
        {{- if or $serving.weights.existingClaim $serving.weights.hostPath }}
        - { name: weights, mountPath: /models, readOnly: true } # the image looks here for a version that is a folder
        {{- end }}
        {{- if $serving.tls.secret }}
        - { name: certificate, mountPath: /etc/proofloop/tls, readOnly: true }
        {{- end }}
  volumes:
    {{- include "proofloop.volumes" .root | nindent 4 }}
    {{- $triton := include "proofloop.tritonName" .server.version }}
    - name: models # the model repository: one model, named after its version
      configMap:
        name: {{ .server.name }}
        items:
          - { key: config.pbtxt, path: {{ $triton }}/config.pbtxt }
          - { key: model.py, path: {{ $triton }}/1/model.py }
    - name: settings
      configMap:
        name: {{ .server.name }}
        items:
          - { key: model.yaml, path: model.yaml }
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

{{/* The environment of a server. */}}
{{- define "proofloop.serverSettings" -}}
{{ include "proofloop.settings" .root }}
PROOFLOOP_MODELS: /etc/proofloop/models
PROOFLOOP_SERVING_SETTINGS: /etc/proofloop/serving
PROOFLOOP_CACHE: /scratch
HF_HOME: /scratch/huggingface
{{- end }}

{{/* A server's files: the engine's settings, and a Triton model that names its version. */}}
{{- define "proofloop.serverFiles" -}}
model.yaml: |
  engine: {{ .server.serving.engine }}
  {{- with .server.serving.settings }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
config.pbtxt: |
  backend: "python"
  instance_group [ { kind: KIND_CPU } ] # else Triton loads the model once for each GPU; the engine itself uses all GPUs
  parameters { key: "version" value { string_value: {{ .server.version | quote }} } }
  parameters { key: "settings" value { string_value: "model.yaml" } }
model.py: |
  from proofloop_serving.triton.model import TritonPythonModel as TritonPythonModel
{{- end }}

{{/* The Triton model name of a version, as the engine `triton` computes it. */}}
{{- define "proofloop.tritonName" -}}
{{ . | replace "/" "." }}
{{- end }}
