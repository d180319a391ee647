{{/* Names, labels, and templates that all pods share. */}}

{{/* At most 20 characters: a model server's name, with what Kubernetes appends to it, has 63. A service's name has no dots. */}}
{{- define "proofloop.fullname" -}}
{{- $name := default .Release.Name .Values.nameOverride | replace "." "-" | trunc 20 | trimSuffix "-" -}}
{{- if not (regexMatch "^[a-z]" $name) -}}
{{- fail (printf "the release's name %q does not begin with a letter, as names of services must. Set nameOverride." .Release.Name) -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{/* The role's name for Kubernetes: meta_verifier becomes meta-verifier. Takes a role. */}}
{{- define "proofloop.kebab" -}}
{{- . | replace "_" "-" -}}
{{- end -}}

{{/* Takes (dict "root" $ "component" name). */}}
{{- define "proofloop.selector" -}}
app.kubernetes.io/name: proofloop
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "proofloop.labels" -}}
{{ include "proofloop.selector" . }}
app.kubernetes.io/part-of: proofloop
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end -}}

{{/* Takes (dict "root" $ "repository" r "tag" t). */}}
{{- define "proofloop.image" -}}
{{- $registry := .root.Values.image.registry | trimSuffix "/" -}}
{{- if not (or $registry (contains "/" .repository) (eq .root.Values.image.pullPolicy "Never")) -}}
{{- fail (printf "image.registry is empty, and no public registry has an image named %s. Set image.registry to the registry of a release or to your own (docs/how-to/kubernetes.md). If the nodes have the images, set image.pullPolicy to Never." .repository) -}}
{{- end -}}
{{- $tag := .tag | default .root.Values.image.tag | default .root.Chart.AppVersion -}}
{{- if $registry -}}{{ $registry }}/{{- end -}}
{{ .repository }}{{ ternary "@" ":" (hasPrefix "sha256:" $tag) }}{{ $tag }}
{{- end -}}

{{- define "proofloop.workerImage" -}}
{{- $repository := .worker.image.repository | default (printf "proofloop-%s" (include "proofloop.kebab" .role)) -}}
{{- include "proofloop.image" (dict "root" .root "repository" $repository "tag" .worker.image.tag) -}}
{{- end -}}

{{/* The enabled roles, each with the values of `worker` and its own merged, as YAML. */}}
{{- define "proofloop.workers" -}}
{{- range list "generator" "verifier" "meta_verifier" "labeler" "trainer" }}
{{- if not (hasKey ($.Values.roles | default dict) .) }}
{{- fail (printf "roles.%s is null, as a key with only comments below it. Remove the key, or set roles.%s.enabled to false." . .) }}
{{- end }}
{{- end }}
{{- range $role, $own := .Values.roles }}
{{- $worker := mergeOverwrite (deepCopy $.Values.worker) (deepCopy $own) }}
{{- if $worker.enabled }}
{{- $longest := $.Values.broker.longestCallSeconds }}
{{- if kindIs "invalid" $worker.drainSeconds }}{{ $_ := set $worker "drainSeconds" $longest }}{{ end }}
{{ $role }}: {{ $worker | toJson }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The versions with servers in this release: a list of role, version, settings and name, as YAML. */}}
{{- define "proofloop.servers" -}}
servers:
{{- range $role, $own := .Values.roles }}
{{- $model := $own.model | default dict }}
{{- $serving := mergeOverwrite (deepCopy $.Values.serving) (deepCopy ($own.serving | default dict)) }}
{{- range $version := (concat (list ($model.version | default "")) ($model.keep | default list)) | compact | uniq }}
{{- $slug := regexReplaceAll "[^a-z0-9]+" (base $version | lower) "-" | trunc 10 | trimAll "-" }}
{{- $name := printf "%s-%s-%s-%s" (include "proofloop.fullname" $) (include "proofloop.kebab" $role) $slug (sha256sum $version | trunc 6) }}
- {{ dict "role" $role "version" $version "name" $name "serving" $serving | toJson }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Kubernetes' pod security standard `restricted`, with a read-only root. OpenShift sets the user and groups itself. */}}
{{- define "proofloop.podSecurity" -}}
runAsNonRoot: true
{{- if not .Values.openshift }}
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
{{- end }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "proofloop.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
privileged: false
capabilities:
  drop: [ALL]
{{- end -}}

{{/* A service account without permissions: no pod calls the Kubernetes API. Takes (dict "root" $ "component" name "annotations" a). */}}
{{- define "proofloop.account" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "proofloop.fullname" .root }}-{{ .component }}
  labels: {{- include "proofloop.labels" . | nindent 4 }}
  {{- with .annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
automountServiceAccountToken: false
{{- end -}}

{{- define "proofloop.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Addresses of broker and store, the same for every process that uses them. */}}
{{- define "proofloop.settings" -}}
PROOFLOOP_SECRETS: /run/secrets/proofloop
PROOFLOOP_NAMESPACE: {{ .Values.broker.namespace | quote }}
PROOFLOOP_LONGEST_CALL_S: {{ int .Values.broker.longestCallSeconds | quote }}
PROOFLOOP_LOG_LEVEL: {{ .Values.logLevel | quote }}
PROOFLOOP_S3_ENDPOINT: {{ required "store.endpoint is empty, and pods share nothing but the store. Set it to the S3 endpoint, https://host:port (docs/how-to/kubernetes.md)." .Values.store.endpoint | quote }}
PROOFLOOP_S3_BUCKET: {{ .Values.store.bucket | quote }}
PROOFLOOP_S3_PREFIX: {{ .Values.store.prefix | quote }}
PROOFLOOP_S3_REGION: {{ .Values.store.region | quote }}
{{- if .Values.tls.caConfigMap }}
SSL_CERT_FILE: /etc/proofloop/ca/{{ .Values.tls.caKey }}
{{- end }}
{{- if .Values.broker.clientSecret }}
PROOFLOOP_BROKER_CERT: /etc/proofloop/client/tls.crt
PROOFLOOP_BROKER_KEY: /etc/proofloop/client/tls.key
{{- end }}
{{- end -}}

{{/* The environment of one role. Takes (dict "root" $ "worker" w). */}}
{{- define "proofloop.workerSettings" -}}
{{ include "proofloop.settings" .root }}
PROOFLOOP_METRICS_PORT: "9464"
PROOFLOOP_DRAIN_S: {{ .worker.drainSeconds | quote }}
PROOFLOOP_GRACE_S: {{ .worker.graceSeconds | quote }}
PROOFLOOP_TASK_EVENTS: {{ .worker.taskEvents | quote }}
{{- end -}}

{{/* Takes a dict of names and values. */}}
{{- define "proofloop.env" -}}
{{- range $name, $value := . }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end -}}

{{- define "proofloop.mounts" -}}
- { name: secrets, mountPath: /run/secrets/proofloop, readOnly: true }
- { name: tmp, mountPath: /tmp }
{{- if .Values.tls.caConfigMap }}
- { name: ca, mountPath: /etc/proofloop/ca, readOnly: true }
{{- end }}
{{- if .Values.broker.clientSecret }}
- { name: client, mountPath: /etc/proofloop/client, readOnly: true }
{{- end }}
{{- end -}}

{{/* The secrets as files. RabbitMQ's operator makes the secret with its broker's address, user and password. */}}
{{- define "proofloop.volumes" -}}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      - secret:
          name: {{ .Values.secrets.existingSecret }}
      {{- if .Values.rabbitmqCluster.enabled }}
      - secret:
          name: {{ include "proofloop.fullname" . }}-rabbitmq-default-user
          items:
            - { key: connection_string, path: proofloop_broker }
      {{- end }}
{{- include "proofloop.caVolume" . }}
{{- end -}}

{{/* The broker's address and password as files, and no other secret. */}}
{{- define "proofloop.brokerVolumes" -}}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      - secret:
          {{- if .Values.rabbitmqCluster.enabled }}
          name: {{ include "proofloop.fullname" . }}-rabbitmq-default-user
          items:
            - { key: connection_string, path: proofloop_broker }
          {{- else }}
          name: {{ .Values.secrets.existingSecret }}
          items:
            - { key: proofloop_broker, path: proofloop_broker }
      - secret:
          name: {{ .Values.secrets.existingSecret }}
          optional: true
          items:
            - { key: proofloop_broker_password, path: proofloop_broker_password }
          {{- end }}
{{- include "proofloop.caVolume" . }}
{{- end -}}

{{- define "proofloop.caVolume" -}}
{{- if .Values.tls.caConfigMap }}
- name: ca
  configMap:
    name: {{ .Values.tls.caConfigMap }}
{{- end }}
{{- if .Values.broker.clientSecret }}
- name: client
  secret:
    secretName: {{ .Values.broker.clientSecret }}
    defaultMode: 0440
{{- end }}
{{- end -}}

{{/* An autoscaler's target: messages, waiting and running, for each pod. */}}
{{- define "proofloop.messagesPerPod" -}}
{{- max 1 (mulf .concurrency .scaling.backlogRounds | ceil | int) -}}
{{- end -}}
