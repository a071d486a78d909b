/* A LiteRT delegate that stands in for libedgetpu: it runs the op "edgetpu-custom-op" as y = 2 x.
 *
 * Declares what it needs of LiteRT's published C ABI (tflite/core/c/common.h and
 * tflite/delegates/external/external_delegate_interface.h), so no header of theirs is needed.
 * Options: "trace" names a file to which each call adds a line; "fail" is an error to report.
 * With -DCRASH_ON_LOAD its constructor kills the process, as a library made for another LiteRT may.
 */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int Status; /* 0: ok, 1: error */
typedef struct { int size; int data[]; } IntArray;
typedef struct Delegate Delegate;
typedef struct Context Context;

typedef struct {
  int type;
  void* data;
  IntArray* dims;
  struct { float scale; int32_t zero_point; } params;
  int allocation_type;
  size_t bytes;
  const void* allocation;
  const char* name;
  Delegate* delegate;
  int buffer_handle;
  _Bool data_is_stale;
  _Bool is_variable;
  struct { int type; void* params; } quantization;
  void* sparsity;
  const IntArray* dims_signature;
} Tensor;

typedef struct {
  IntArray *inputs, *outputs, *intermediates, *temporaries;
  void *user_data, *builtin_data;
  const void* custom_initial_data;
  int custom_initial_data_size;
  Delegate* delegate;
  _Bool might_have_side_effect;
} Node;

typedef struct {
  void* (*init)(Context*, const char*, size_t);
  void (*free)(Context*, void*);
  Status (*prepare)(Context*, Node*);
  Status (*invoke)(Context*, Node*);
  const char* (*profiling_string)(const Context*, const Node*);
  int32_t builtin_code;
  const char* custom_name;
  int version;
  void* registration_external;
  void* (*async_kernel)(Context*, Node*);
  uint64_t inplace_operator;
} Registration;

struct Context {
  size_t tensors_size;
  Status (*GetExecutionPlan)(Context*, IntArray**);
  Tensor* tensors;
  void* impl;
  Status (*ResizeTensor)(Context*, Tensor*, IntArray*);
  void (*ReportError)(Context*, const char*, ...);
  Status (*AddTensors)(Context*, int, int*);
  Status (*GetNodeAndRegistration)(Context*, int, Node**, Registration**);
  Status (*ReplaceNodeSubsetsWithDelegateKernels)(Context*, Registration, const IntArray*,
                                                  Delegate*);
};

struct Delegate {
  void* data;
  Status (*Prepare)(Context*, Delegate*);
  Status (*CopyFromBufferHandle)(Context*, Delegate*, int, Tensor*);
  Status (*CopyToBufferHandle)(Context*, Delegate*, int, Tensor*);
  void (*FreeBufferHandle)(Context*, Delegate*, int*);
  int64_t flags;
  void* opaque_delegate_builder;
};

static void trace(const char* path, const char* line) {
  FILE* file = path ? fopen(path, "a") : NULL;
  if (file) {
    fprintf(file, "%s\n", line);
    fclose(file);
  }
}

static Status kernel_prepare(Context* context, Node* node) { return 0; }

static Status kernel_invoke(Context* context, Node* node) {
  const Tensor* from = &context->tensors[node->inputs->data[0]];
  Tensor* to = &context->tensors[node->outputs->data[0]];
  for (size_t at = 0; at < from->bytes / sizeof(float); at++)
    ((float*)to->data)[at] = 2 * ((const float*)from->data)[at];
  return 0;
}

static Status prepare(Context* context, Delegate* delegate) {
  IntArray* plan;
  trace(delegate->data, "prepare");
  if (context->GetExecutionPlan(context, &plan)) return 1;
  IntArray* ours = malloc(sizeof(IntArray) + sizeof(int) * plan->size);
  ours->size = 0;
  for (int at = 0; at < plan->size; at++) {
    Node* node;
    Registration* registration;
    if (context->GetNodeAndRegistration(context, plan->data[at], &node, &registration)) return 1;
    if (registration->custom_name && !strcmp(registration->custom_name, "edgetpu-custom-op"))
      ours->data[ours->size++] = plan->data[at];
  }
  Registration kernel = {
      .prepare = kernel_prepare, .invoke = kernel_invoke, .custom_name = "doubling", .version = 1};
  Status status =
      context->ReplaceNodeSubsetsWithDelegateKernels(context, kernel, ours, delegate);
  free(ours);
  return status;
}

Delegate* tflite_plugin_create_delegate(const char* const* keys, const char* const* values,
                                        size_t count, void (*report)(const char*)) {
  Delegate* delegate = calloc(1, sizeof(Delegate));
  delegate->Prepare = prepare;
  delegate->flags = 1; /* dynamic tensors are fine; else LiteRT prepares the unknown op first */
  for (size_t at = 0; at < (count & 0xffffffff); at++) {
    if (!strcmp(keys[at], "fail")) {
      report(values[at]);
      free(delegate);
      return NULL;
    }
    if (!strcmp(keys[at], "trace")) delegate->data = strdup(values[at]);
  }
  trace(delegate->data, "create");
  return delegate;
}

void tflite_plugin_destroy_delegate(Delegate* delegate) {
  if (!delegate) return; /* LiteRT also destroys what could not be created */
  trace(delegate->data, "destroy");
  free(delegate->data);
  free(delegate);
}

#ifdef CRASH_ON_LOAD
__attribute__((constructor)) static void crash(void) { raise(SIGSEGV); }
#endif
