/* A CUDA driver without a GPU, for the tests: device memory is host memory, streams run at once, kernels do nothing
   but have their arguments recorded. It is strict where a real driver is: a call on a thread without a current context
   fails, freed handles are refused, and what is still alive is counted. NVIDIA's own Python binding runs on top of it,
   so the tests see whether we call it with arguments that it accepts. Signatures and numbers: cuda.h. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int Status;
enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_CONTEXT = 201, NOT_FOUND = 500, NOT_READY = 600,
       CAPTURE_UNSUPPORTED = 900 };
enum { CONTEXT, STREAM, EVENT, DEVICE_MEMORY, HOST_MEMORY, MODULE, GRAPH, EXECUTABLE, KINDS };

typedef struct { int kind; void *address; size_t size; } Alive;
static Alive alive[4096];
static int num_alive;

static void *add(int kind, size_t size) {
  void *address = calloc(1, size ? size : 1);
  alive[num_alive++] = (Alive){kind, address, size};
  return address;
}
static int is(int kind, const void *address) {
  for (int i = 0; i < num_alive; i++)
    if (alive[i].kind == kind && alive[i].address == address) return 1;
  return 0;
}
static Status take(int kind, void *address) {
  for (int i = 0; i < num_alive; i++)
    if (alive[i].kind == kind && alive[i].address == address) {
      free(address);
      alive[i] = alive[--num_alive];
      return OK;
    }
  return INVALID_VALUE;
}
/* A range of device memory, or of host memory that the device reaches. */
static int inside(const char *address, size_t size) {
  for (int i = 0; i < num_alive; i++) {
    const char *start = alive[i].address;
    int memory = alive[i].kind == DEVICE_MEMORY || alive[i].kind == HOST_MEMORY;
    if (memory && address >= start && address + size <= start + alive[i].size) return 1;
  }
  return 0;
}

static char failing[64];
static Status failure;
static char journal[1 << 16];
static __thread void *current[16];
static __thread int depth;
static unsigned char recorded[256];
static int recorded_size, parameter_sizes[16], num_parameters;
static void *primary;
static int primary_users, capturing, invalidated, not_ready;
typedef struct { void *to; const void *from; size_t size; } Copy;
static Copy captured[64];
static int num_captured;

/* For the tests. */
void fake_fail(const char *function, int status) { strcpy(failing, function), failure = status; }
int fake_alive(int kind) {
  int count = 0;
  for (int i = 0; i < num_alive; i++) count += alive[i].kind == kind;
  return count;
}
int fake_primary_users(void) { return primary_users; }
const char *fake_journal(void) { return journal; }
void fake_clear(void) { journal[0] = 0, failing[0] = 0, not_ready = 0; }
void fake_not_ready(int yes) { not_ready = yes; }
void fake_parameters(int count, const int *sizes) {
  num_parameters = count;
  memcpy(parameter_sizes, sizes, count * sizeof *sizes);
}
int fake_recorded(unsigned char *to) { memcpy(to, recorded, recorded_size); return recorded_size; }

static Status enter(const char *function, int needs_context) {
  if (strlen(journal) + strlen(function) + 2 < sizeof journal) strcat(strcat(journal, function), " ");
  if (!strcmp(failing, function)) { failing[0] = 0; return failure; }
  return needs_context && !depth ? INVALID_CONTEXT : OK;
}
#define ENTER(needs) do { Status s = enter(__func__, needs); if (s) return s; } while (0)

Status cuGetProcAddress_v2(const char *name, void **function, int version, unsigned long long flags, int *found) {
  (void)version, (void)flags;
  *function = 0;
  Dl_info self;
  /* Only our own functions: the process may have others of these names. */
  void *address = dlsym(RTLD_DEFAULT, name);
  if (!dladdr((void *)cuGetProcAddress_v2, &self)) return NOT_FOUND;
  void *library = dlopen(self.dli_fname, RTLD_NOW | RTLD_NOLOAD);
  address = library ? dlsym(library, name) : address;
  if (found) *found = address ? 0 : 1;
  *function = address;
  return address ? OK : NOT_FOUND;
}
Status cuGetProcAddress(const char *name, void **function, int version, unsigned long long flags) {
  return cuGetProcAddress_v2(name, function, version, flags, 0);
}

Status cuInit(unsigned flags) { (void)flags; ENTER(0); return OK; }
Status cuDriverGetVersion(int *version) { *version = 13000; return OK; }
Status cuDeviceGetCount(int *count) { *count = 1; return OK; }
Status cuDeviceGet(int *device, int ordinal) { *device = ordinal; return ordinal ? 101 : OK; }
Status cuDeviceGetName(char *name, int length, int device) { (void)device; snprintf(name, length, "Fake"); return OK; }
Status cuGetErrorName(Status status, const char **text) {
  *text = status == 700 ? "CUDA_ERROR_ILLEGAL_ADDRESS" : status == 2 ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR_X";
  return OK;
}
Status cuGetErrorString(Status status, const char **text) { (void)status; *text = "in the driver's words"; return OK; }
Status cuDeviceGetAttribute(int *value, int attribute, int device) {
  (void)device;
  /* Index: CUdevice_attribute. */
  static const int known[128] = {[1] = 1024, [2] = 1024, [3] = 1024, [4] = 64, [5] = 2147483647, [6] = 65535,
    [7] = 65535, [16] = 14, [18] = 1, [75] = 8, [76] = 7, [97] = 166912};
  *value = known[attribute];
  return known[attribute] ? OK : INVALID_VALUE;
}
Status cuDevicePrimaryCtxRetain(void **context, int device) {
  (void)device; ENTER(0);
  if (!primary_users++) primary = add(CONTEXT, 1);
  *context = primary;
  return OK;
}
Status cuDevicePrimaryCtxRelease(int device) {
  (void)device; ENTER(0);
  return --primary_users ? OK : take(CONTEXT, primary);
}
Status cuCtxSetCurrent(void *context) {
  ENTER(0);
  if (!is(CONTEXT, context)) return INVALID_CONTEXT;
  if (!depth) depth = 1;
  current[depth - 1] = context;
  return OK;
}
Status cuCtxPushCurrent(void *context) {
  if (!is(CONTEXT, context)) return INVALID_CONTEXT;
  current[depth++] = context;
  return OK;
}
Status cuCtxPopCurrent(void **context) {
  if (!depth) return INVALID_CONTEXT;
  *context = current[--depth];
  return OK;
}
int fake_depth(void) { return depth; }
Status cuCtxSynchronize(void) { ENTER(1); return OK; }
Status cuMemGetInfo(size_t *free_bytes, size_t *total) { ENTER(1); *free_bytes = 5, *total = 7; return OK; }

Status cuStreamCreate(void **stream, unsigned flags) {
  ENTER(1);
  if (flags != 1) return INVALID_VALUE;
  *stream = add(STREAM, 1);
  return OK;
}
/* 0 and 1 are names of the legacy default stream. */
static Status stream_is(void *stream) { return (size_t)stream <= 1 || is(STREAM, stream) ? OK : INVALID_VALUE; }
Status cuStreamDestroy(void *stream) { ENTER(1); return take(STREAM, stream); }
Status cuStreamSynchronize(void *stream) {
  ENTER(1);
  if (capturing) { invalidated = 1; return CAPTURE_UNSUPPORTED; }
  return stream_is(stream);
}
Status cuStreamQuery(void *stream) { ENTER(1); return not_ready ? NOT_READY : stream_is(stream); }
Status cuStreamWaitEvent(void *stream, void *event, unsigned flags) {
  (void)flags; ENTER(1);
  return stream_is(stream) || !is(EVENT, event) ? INVALID_VALUE : OK;
}
Status cuEventCreate(void **event, unsigned flags) { ENTER(1); (void)flags; *event = add(EVENT, 1); return OK; }
Status cuEventDestroy(void *event) { ENTER(1); return take(EVENT, event); }
Status cuEventRecord(void *event, void *stream) {
  ENTER(1);
  return stream_is(stream) || !is(EVENT, event) ? INVALID_VALUE : OK;
}
Status cuEventSynchronize(void *event) { ENTER(1); return is(EVENT, event) ? OK : INVALID_VALUE; }
Status cuEventQuery(void *event) { ENTER(1); return not_ready ? NOT_READY : is(EVENT, event) ? OK : INVALID_VALUE; }
Status cuEventElapsedTime(float *ms, void *start, void *end) {
  ENTER(1);
  if (!is(EVENT, start) || !is(EVENT, end)) return INVALID_VALUE;
  *ms = 1.5f;
  return OK;
}

Status cuMemAlloc(void **pointer, size_t size) {
  ENTER(1);
  if (size > 1 << 30) return OUT_OF_MEMORY;
  *pointer = add(DEVICE_MEMORY, size);
  return OK;
}
Status cuMemFree(void *pointer) { ENTER(1); return take(DEVICE_MEMORY, pointer); }
Status cuMemHostAlloc(void **pointer, size_t size, unsigned flags) {
  ENTER(1);
  if (flags != 1 && flags != 3) return INVALID_VALUE;
  *pointer = add(HOST_MEMORY, size);
  return OK;
}
Status cuMemFreeHost(void *pointer) { ENTER(1); return take(HOST_MEMORY, pointer); }
Status cuMemHostGetDevicePointer(void **device, void *host, unsigned flags) {
  (void)flags; ENTER(1);
  *device = host;
  return is(HOST_MEMORY, host) ? OK : INVALID_VALUE;
}
static Status copy(void *to, const void *from, size_t size) {
  if (capturing) captured[num_captured++] = (Copy){to, from, size};
  else memcpy(to, from, size);
  return OK;
}
Status cuMemcpyHtoDAsync(void *to, const void *from, size_t size, void *stream) {
  ENTER(1);
  return stream_is(stream) || !inside(to, size) ? INVALID_VALUE : copy(to, from, size);
}
Status cuMemcpyDtoHAsync(void *to, const void *from, size_t size, void *stream) {
  ENTER(1);
  return stream_is(stream) || !inside(from, size) ? INVALID_VALUE : copy(to, from, size);
}
Status cuMemsetD8Async(void *to, unsigned char byte, size_t size, void *stream) {
  ENTER(1);
  if (stream_is(stream) || !inside(to, size)) return INVALID_VALUE;
  memset(to, byte, size);
  return OK;
}
Status cuPointerGetAttribute(void *value, int attribute, void *pointer) {
  ENTER(1);
  if (attribute != 9 || !inside(pointer, 1)) return INVALID_VALUE;
  *(int *)value = 0;
  return OK;
}

Status cuModuleLoadData(void **module, const void *image) {
  ENTER(1);
  if (memcmp(image, "\x7f" "ELF", 4)) return 200;
  *module = add(MODULE, 1);
  return OK;
}
Status cuModuleUnload(void *module) { ENTER(1); return take(MODULE, module); }
Status cuModuleGetFunction(void **function, void *module, const char *name) {
  (void)name; ENTER(1);
  *function = module;
  return is(MODULE, module) ? OK : INVALID_VALUE;
}
static int dynamic_shared;
int fake_dynamic_shared(void) { return dynamic_shared; }
Status cuFuncSetAttribute(void *function, int attribute, int value) {
  (void)function; ENTER(1);
  if (attribute != 8) return INVALID_VALUE;
  dynamic_shared = value;
  return OK;
}
Status cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                      unsigned shared, void *stream, void **parameters, void **extra) {
  ENTER(1);
  if (!is(MODULE, function) || stream_is(stream) || extra) return INVALID_VALUE;
  unsigned numbers[7] = {gx, gy, gz, bx, by, bz, shared};
  memcpy(recorded, numbers, sizeof numbers);
  recorded_size = sizeof numbers;
  for (int i = 0; i < num_parameters; i++) {
    memcpy(recorded + recorded_size, parameters[i], parameter_sizes[i]);
    recorded_size += parameter_sizes[i];
  }
  return OK;
}

Status cuStreamBeginCapture(void *stream, int mode) {
  ENTER(1);
  if (capturing || mode != 1) return INVALID_VALUE;
  capturing = 1, invalidated = 0, num_captured = 0;
  return stream_is(stream);
}
Status cuStreamEndCapture(void *stream, void **graph) {
  ENTER(1);
  *graph = 0;
  if (!capturing || stream_is(stream)) return INVALID_VALUE;
  capturing = 0;
  if (invalidated) return 901;
  *graph = add(GRAPH, 1);
  return OK;
}
Status cuGraphDestroy(void *graph) { ENTER(1); return take(GRAPH, graph); }
Status cuGraphInstantiate(void **executable, void *graph, unsigned long long flags) {
  ENTER(1);
  if (flags || !is(GRAPH, graph)) return INVALID_VALUE;
  *executable = add(EXECUTABLE, 1);
  return OK;
}
Status cuGraphInstantiateWithFlags(void **e, void *graph, unsigned long long f) { return cuGraphInstantiate(e, graph, f); }
Status cuGraphUpload(void *executable, void *stream) {
  ENTER(1);
  return is(EXECUTABLE, executable) ? stream_is(stream) : INVALID_VALUE;
}
Status cuGraphExecDestroy(void *executable) { ENTER(1); return take(EXECUTABLE, executable); }
Status cuGraphLaunch(void *executable, void *stream) {
  ENTER(1);
  if (!is(EXECUTABLE, executable) || stream_is(stream)) return INVALID_VALUE;
  for (int i = 0; i < num_captured; i++) memcpy(captured[i].to, captured[i].from, captured[i].size);
  return OK;
}
