// An emulated CUDA driver: a libcuda.so.1 that runs the kernels linked into it on the CPU, so that the host code runs as it is.
//
// Read from the environment at every use:
//   EMUCUDA_DEVICES  number of devices, 1 if unset            EMUCUDA_MEM      bytes of each, 4 GiB if unset
//   EMUCUDA_LAZY     1: work of a stream is put off until something waits for it, so that a missing wait shows
//   EMUCUDA_SEED     order of threads in a block              EMUCUDA_THREADS  threads of the operating system; 0: one a core
//   EMUCUDA_FAIL_ALLOC  a file that holds a number n: the n-th allocation from now on fails (1 is the next), later ones succeed; with -n all
//                       later ones fail as well; every allocation, of pinned memory and of graphs too, counts it towards 0
//   EMUCUDA_FAIL_LAUNCH  n: the n-th launch of a kernel in the process fails, and with it the device
// Fresh memory holds 0xCD, freed memory 0xDD. An error of a kernel is printed and stays, as a device's does.

#include <chrono>
#include <cstdio>
#include <deque>
#include <map>
#include <memory>
#include <set>

#include "device.h"

namespace {

using Result = int;
using DevicePointer = unsigned long long;
using Device = int;
using Work = std::function<void()>;

enum : Result {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201,
    NOT_FOUND = 500,
    NOT_READY = 600,
    LAUNCH_FAILED = 719,
};

long setting(const char* name, long fallback) {
    const char* value = getenv(name);
    return value ? atol(value) : fallback;
}

struct Stream {
    std::deque<Work> queue;
    uint64_t done = 0, pushed = 0;
};

struct Event {
    double seconds = 0;
    bool is_done = true;
    // Where it was recorded, while it is not done.
    Stream* stream = nullptr;
    uint64_t position = 0;
};

struct Context {
    Device device;
    Stream default_stream;
    std::set<Stream*> streams;
};

struct Allocation {
    size_t bytes;
    Device device;
};

// Never destroyed: threads may outlive the destructors of statics.
struct Driver {
    std::recursive_mutex mutex;
    std::atomic<Result> error{SUCCESS};
    std::vector<std::unique_ptr<Context>> contexts;
    std::map<DevicePointer, Allocation> memory;
    std::map<Device, size_t> used;
    // Pinned host memory and its bytes.
    std::map<uintptr_t, size_t> pinned;
};

Driver& driver() {
    static Driver* driver = new Driver;
    return *driver;
}

thread_local Context* current = nullptr;

int n_devices() { return static_cast<int>(setting("EMUCUDA_DEVICES", 1)); }
size_t device_bytes() { return static_cast<size_t>(setting("EMUCUDA_MEM", 4l << 30)); }

// Counts an allocation; whether it must fail.
bool is_failing_allocation() {
    const char* path = getenv("EMUCUDA_FAIL_ALLOC");
    FILE* file = path ? fopen(path, "r+") : nullptr;
    if (!file) return false;
    long left = 0;
    bool is_read = fscanf(file, "%ld", &left) == 1;
    if (is_read && left && left != -1) {
        rewind(file);
        fprintf(file, "%-12ld", left > 0 ? left - 1 : left + 1);
    }
    fclose(file);
    return is_read && (left == 1 || left == -1);
}

// Counts a launch; whether it must fail.
bool is_failing_launch() {
    static long n_launches = 0;
    return ++n_launches == setting("EMUCUDA_FAIL_LAUNCH", 0);
}

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// Does the work of a stream up to a position.
void drain(Stream* stream, uint64_t position = ~0ull) {
    while (!stream->queue.empty() && stream->done < position) {
        Work work = std::move(stream->queue.front());
        stream->queue.pop_front();
        stream->done++;
        work();
    }
}

void drain_all() {
    for (auto& context : driver().contexts) {
        drain(&context->default_stream);
        for (Stream* stream : context->streams) drain(stream);
    }
}

Stream* stream_of(void* handle) {
    // 1 and 2 are the legacy and the per-thread default stream.
    return reinterpret_cast<uintptr_t>(handle) <= 2 ? &current->default_stream : static_cast<Stream*>(handle);
}

Result enqueue(void* handle, Work work) {
    if (!current) return INVALID_CONTEXT;
    Stream* stream = stream_of(handle);
    if (stream == &current->default_stream) drain_all();
    stream->pushed++;
    if (setting("EMUCUDA_LAZY", 0)) {
        stream->queue.push_back(std::move(work));
    } else {
        stream->done++;
        work();
    }
    return driver().error;
}

bool is_allocated(DevicePointer pointer, size_t bytes) {
    if (!bytes) return true;
    auto after = driver().memory.upper_bound(pointer);
    if (after == driver().memory.begin()) return false;
    --after;
    return pointer + bytes <= after->first + after->second.bytes;
}

Result release_memory(DevicePointer pointer) {
    if (!pointer) return SUCCESS;
    auto found = driver().memory.find(pointer);
    if (found == driver().memory.end()) return INVALID_VALUE;
    driver().used[found->second.device] -= found->second.bytes;
    memset(reinterpret_cast<void*>(pointer), 0xDD, found->second.bytes);
    driver().memory.erase(found);
    free(reinterpret_cast<void*>(pointer));
    return SUCCESS;
}

Result copy(void* stream, DevicePointer to, DevicePointer from, size_t bytes, bool checks_to, bool checks_from) {
    if ((checks_to && !is_allocated(to, bytes)) || (checks_from && !is_allocated(from, bytes))) return INVALID_VALUE;
    return enqueue(stream, [=] { memcpy(reinterpret_cast<void*>(to), reinterpret_cast<void*>(from), bytes); });
}

bool is_pinned(const void* pointer) {
    auto after = driver().pinned.upper_bound(reinterpret_cast<uintptr_t>(pointer));
    if (after == driver().pinned.begin()) return false;
    --after;
    return reinterpret_cast<uintptr_t>(pointer) < after->first + after->second;
}

const char* error_name(Result error) {
    switch (error) {
        case SUCCESS: return "CUDA_SUCCESS";
        case INVALID_VALUE: return "CUDA_ERROR_INVALID_VALUE";
        case OUT_OF_MEMORY: return "CUDA_ERROR_OUT_OF_MEMORY";
        case NO_DEVICE: return "CUDA_ERROR_NO_DEVICE";
        case NOT_FOUND: return "CUDA_ERROR_NOT_FOUND";
        case LAUNCH_FAILED: return "CUDA_ERROR_LAUNCH_FAILED";
        default: return "CUDA_ERROR_OTHER";
    }
}

}  // namespace

#define API extern "C" __attribute__((visibility("default"))) Result
#define LOCK std::lock_guard<std::recursive_mutex> lock(driver().mutex)

API cuInit(unsigned) {
    LOCK;
    if (!n_devices()) return NO_DEVICE;
    auto& contexts = driver().contexts;
    while (static_cast<int>(contexts.size()) < n_devices()) {
        contexts.emplace_back(new Context);
        contexts.back()->device = static_cast<Device>(contexts.size()) - 1;
    }
    return SUCCESS;
}
API cuDriverGetVersion(int* version) {
    *version = 13000;
    return SUCCESS;
}
API cuDeviceGetCount(int* count) {
    *count = n_devices();
    return SUCCESS;
}
API cuDeviceGet(Device* device, int ordinal) {
    if (ordinal < 0 || ordinal >= n_devices()) return INVALID_DEVICE;
    *device = ordinal;
    return SUCCESS;
}
API cuDeviceGetName(char* name, int bytes, Device device) {
    snprintf(name, static_cast<size_t>(bytes), "CPU emulation %d", device);
    return SUCCESS;
}
API cuDeviceGetUuid_v2(char* uuid, Device device) {
    memset(uuid, 0, 16);
    uuid[15] = static_cast<char>(device);
    return SUCCESS;
}
API cuDeviceGetUuid(char* uuid, Device device) { return cuDeviceGetUuid_v2(uuid, device); }
API cuDeviceTotalMem_v2(size_t* bytes, Device) {
    *bytes = device_bytes();
    return SUCCESS;
}
API cuDeviceGetAttribute(int* value, int attribute, Device) {
    // A device of compute capability 9.0, by the numbers of CUdevice_attribute.
    static const std::map<int, int> attributes = {{1, 1024}, {8, 49152}, {10, 32}, {13, 1755000}, {16, 132}, {36, 2619000}, {37, 5120}, {75, 9}, {76, 0}, {97, 232448}, {115, 1}};
    auto found = attributes.find(attribute);
    *value = found == attributes.end() ? 0 : found->second;
    return SUCCESS;
}
API cuDevicePrimaryCtxRetain(Context** context, Device device) {
    LOCK;
    if (device < 0 || device >= static_cast<int>(driver().contexts.size())) return INVALID_DEVICE;
    *context = driver().contexts[static_cast<size_t>(device)].get();
    return SUCCESS;
}
API cuDevicePrimaryCtxRelease_v2(Device) { return SUCCESS; }
API cuCtxGetCurrent(Context** context) {
    *context = current;
    return SUCCESS;
}
API cuCtxSetCurrent(Context* context) {
    current = context;
    return SUCCESS;
}
API cuCtxSetFlags(unsigned) { return SUCCESS; }
API cuCtxSynchronize() {
    LOCK;
    drain_all();
    return driver().error;
}

API cuMemGetInfo_v2(size_t* free_bytes, size_t* total_bytes) {
    LOCK;
    if (!current) return INVALID_CONTEXT;
    *total_bytes = device_bytes();
    *free_bytes = *total_bytes - driver().used[current->device];
    return SUCCESS;
}
API cuMemAlloc_v2(DevicePointer* pointer, size_t bytes) {
    LOCK;
    if (!current) return INVALID_CONTEXT;
    if (!bytes) return INVALID_VALUE;
    size_t& used = driver().used[current->device];
    if (is_failing_allocation() || used + bytes > device_bytes()) return OUT_OF_MEMORY;
    void* memory = malloc(bytes);
    if (!memory) return OUT_OF_MEMORY;
    memset(memory, 0xCD, bytes);
    *pointer = reinterpret_cast<DevicePointer>(memory);
    driver().memory[*pointer] = {bytes, current->device};
    used += bytes;
    return SUCCESS;
}
API cuMemFree_v2(DevicePointer pointer) {
    LOCK;
    drain_all();
    return release_memory(pointer);
}
API cuDeviceGetDefaultMemPool(void** pool, Device) {
    *pool = reinterpret_cast<void*>(1);
    return SUCCESS;
}
API cuMemPoolSetAttribute(void*, int, void*) { return SUCCESS; }
API cuMemAllocAsync(DevicePointer* pointer, size_t bytes, void*) { return cuMemAlloc_v2(pointer, bytes); }
API cuMemFreeAsync(DevicePointer pointer, void* stream) {
    LOCK;
    return enqueue(stream, [=] {
        if (release_memory(pointer) != SUCCESS) driver().error = INVALID_VALUE;
    });
}
API cuMemHostAlloc(void** pointer, size_t bytes, unsigned) {
    LOCK;
    if (is_failing_allocation()) return OUT_OF_MEMORY;
    *pointer = aligned_alloc(4096, (bytes + 4095) & ~size_t(4095));
    if (!*pointer) return OUT_OF_MEMORY;
    driver().pinned[reinterpret_cast<uintptr_t>(*pointer)] = bytes;
    return SUCCESS;
}
API cuMemFreeHost(void* pointer) {
    LOCK;
    drain_all();
    driver().pinned.erase(reinterpret_cast<uintptr_t>(pointer));
    free(pointer);
    return SUCCESS;
}
API cuMemcpyHtoDAsync_v2(DevicePointer to, const void* from, size_t bytes, void* stream) {
    LOCK;
    if (is_pinned(from)) return copy(stream, to, reinterpret_cast<DevicePointer>(from), bytes, true, false);
    // A driver has read pageable memory when it returns.
    if (!is_allocated(to, bytes)) return INVALID_VALUE;
    const char* words = static_cast<const char*>(from);
    auto kept = std::make_shared<std::vector<char>>(words, words + bytes);
    return enqueue(stream, [=] { memcpy(reinterpret_cast<void*>(to), kept->data(), bytes); });
}
API cuMemcpyDtoHAsync_v2(void* to, DevicePointer from, size_t bytes, void* stream) {
    LOCK;
    Result result = copy(stream, reinterpret_cast<DevicePointer>(to), from, bytes, false, true);
    // And has written it.
    if (current && !is_pinned(to)) drain(stream_of(stream));
    return result;
}
API cuMemcpyDtoDAsync_v2(DevicePointer to, DevicePointer from, size_t bytes, void* stream) {
    LOCK;
    return copy(stream, to, from, bytes, true, true);
}
API cuMemsetD8Async(DevicePointer to, unsigned char value, size_t bytes, void* stream) {
    LOCK;
    if (!is_allocated(to, bytes)) return INVALID_VALUE;
    return enqueue(stream, [=] { memset(reinterpret_cast<void*>(to), value, bytes); });
}

API cuStreamCreate(Stream** stream, unsigned) {
    LOCK;
    if (!current) return INVALID_CONTEXT;
    *stream = new Stream;
    current->streams.insert(*stream);
    return SUCCESS;
}
API cuStreamCreateWithPriority(Stream** stream, unsigned flags, int) { return cuStreamCreate(stream, flags); }
API cuStreamDestroy_v2(Stream* stream) {
    LOCK;
    drain(stream);
    for (auto& context : driver().contexts) context->streams.erase(stream);
    delete stream;
    return SUCCESS;
}
API cuStreamSynchronize(void* handle) {
    LOCK;
    if (!current) return INVALID_CONTEXT;
    if (stream_of(handle) == &current->default_stream) {
        drain_all();
    } else {
        drain(stream_of(handle));
    }
    return driver().error;
}
API cuStreamQuery(void* handle) {
    LOCK;
    return stream_of(handle)->queue.empty() ? SUCCESS : NOT_READY;
}
API cuEventCreate(Event** event, unsigned) {
    *event = new Event;
    return SUCCESS;
}
API cuEventDestroy_v2(Event* event) {
    LOCK;
    if (event->stream) drain(event->stream, event->position);
    delete event;
    return SUCCESS;
}
API cuEventRecord(Event* event, void* handle) {
    LOCK;
    if (!current) return INVALID_CONTEXT;
    Stream* stream = stream_of(handle);
    uint64_t position = stream->pushed + 1;
    // A later record replaces this one; only the latest may end the wait.
    event->is_done = false;
    event->stream = stream;
    event->position = position;
    return enqueue(handle, [=] {
        if (event->stream != stream || event->position != position) return;
        event->seconds = now();
        event->is_done = true;
        event->stream = nullptr;
    });
}
API cuEventSynchronize(Event* event) {
    LOCK;
    if (event->stream) drain(event->stream, event->position);
    return driver().error;
}
API cuEventQuery(Event* event) {
    LOCK;
    return event->is_done ? SUCCESS : NOT_READY;
}
API cuStreamWaitEvent(void* handle, Event* event, unsigned) {
    LOCK;
    Stream* awaited = event->stream;
    uint64_t position = event->position;
    if (!awaited) return SUCCESS;
    return enqueue(handle, [=] { drain(awaited, position); });
}

API cuModuleLoadData(void** module, const void* image) {
    if (!image) return INVALID_IMAGE;
    *module = reinterpret_cast<void*>(1);
    return SUCCESS;
}
API cuModuleLoad(void**, const char*) { return INVALID_IMAGE; }
API cuModuleUnload(void*) { return SUCCESS; }
API cuModuleGetFunction(const emulator::Kernel** kernel, void*, const char* name) {
    *kernel = emulator::find_kernel(name);
    return *kernel ? SUCCESS : NOT_FOUND;
}
API cuFuncSetAttribute(void*, int, int) { return SUCCESS; }
API cuFuncGetAttribute(int* value, int, void*) {
    *value = 0;
    return SUCCESS;
}
// What a launch runs, with a copy of its arguments.
struct Call {
    const emulator::Kernel* kernel;
    emulator::Launch launch;
    std::vector<std::vector<char>> arguments;

    void run() {
        std::vector<void*> pointers;
        for (auto& argument : arguments) pointers.push_back(argument.data());
        launch.n_workers = static_cast<unsigned>(setting("EMUCUDA_THREADS", 0));
        launch.seed = static_cast<unsigned>(setting("EMUCUDA_SEED", 0));
        std::string error = is_failing_launch() ? "a launch failed, as told" : kernel->run(launch, pointers.data());
        if (error.empty()) return;
        fprintf(stderr, "emulated CUDA: %s\n", error.c_str());
        driver().error = LAUNCH_FAILED;
    }
};

Call call_of(const emulator::Kernel* kernel, emulator::Launch launch, void** arguments) {
    Call call = {kernel, launch, {}};
    for (size_t i = 0; i < kernel->parameter_bytes.size(); i++) {
        const char* argument = static_cast<const char*>(arguments[i]);
        call.arguments.emplace_back(argument, argument + kernel->parameter_bytes[i]);
    }
    return call;
}

API cuLaunchKernel(const emulator::Kernel* kernel, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                   unsigned block_z, unsigned shared_bytes, void* stream, void** arguments, void** extra) {
    LOCK;
    if (extra || !kernel) return INVALID_VALUE;
    emulator::Launch launch = {"", {grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, shared_bytes, 0, 0};
    return enqueue(stream, [call = call_of(kernel, launch, arguments)]() mutable { call.run(); });
}

// Graphs: chains of kernels. A node waits for the one added before it at most.
struct Node {
    Call call;
};
struct Graph {
    std::vector<std::unique_ptr<Node>> nodes;
};
struct Executable {
    Device device = 0;
    // By the node that it was made of.
    std::map<const Node*, Call> calls;
    std::vector<const Node*> order;
    // Where it was launched last: the next launch comes after it.
    Stream* stream = nullptr;
    uint64_t position = 0;
};
// Of device memory, so that one that is not destroyed shows.
constexpr size_t EXECUTABLE_BYTES = 4096;
// The second form of CUDA_KERNEL_NODE_PARAMS.
struct KernelNodeParameters {
    const emulator::Kernel* kernel;
    unsigned grid[3], block[3], shared_bytes;
    void** arguments;
    void** extra;
    void* library_kernel;
    void* context;
};

Result call_of(const KernelNodeParameters* parameters, Call& call) {
    if (!parameters || !parameters->kernel || parameters->extra || parameters->library_kernel || parameters->context) return INVALID_VALUE;
    const unsigned *grid = parameters->grid, *block = parameters->block;
    emulator::Launch launch = {"", {grid[0], grid[1], grid[2]}, {block[0], block[1], block[2]}, parameters->shared_bytes, 0, 0};
    call = call_of(parameters->kernel, launch, parameters->arguments);
    return SUCCESS;
}

API cuGraphCreate(Graph** graph, unsigned flags) {
    LOCK;
    if (flags) return INVALID_VALUE;
    if (is_failing_allocation()) return OUT_OF_MEMORY;
    *graph = new Graph;
    return SUCCESS;
}
API cuGraphAddKernelNode_v2(Node** node, Graph* graph, Node* const* before, size_t n_before, const KernelNodeParameters* parameters) {
    LOCK;
    // Only chains are modelled.
    if (n_before != (graph->nodes.empty() ? 0 : 1) || (n_before && before[0] != graph->nodes.back().get())) return INVALID_VALUE;
    auto added = std::make_unique<Node>();
    Result result = call_of(parameters, added->call);
    if (result != SUCCESS) return result;
    if (is_failing_allocation()) return OUT_OF_MEMORY;
    *node = added.get();
    graph->nodes.push_back(std::move(added));
    return SUCCESS;
}
API cuGraphInstantiateWithFlags(Executable** executable, const Graph* graph, unsigned long long flags) {
    LOCK;
    if (flags) return INVALID_VALUE;
    if (!current) return INVALID_CONTEXT;
    size_t& used = driver().used[current->device];
    if (is_failing_allocation() || used + EXECUTABLE_BYTES > device_bytes()) return OUT_OF_MEMORY;
    used += EXECUTABLE_BYTES;
    *executable = new Executable;
    (*executable)->device = current->device;
    for (auto& node : graph->nodes) {
        (*executable)->calls.emplace(node.get(), node->call);
        (*executable)->order.push_back(node.get());
    }
    return SUCCESS;
}
API cuGraphExecKernelNodeSetParams_v2(Executable* executable, const Node* node, const KernelNodeParameters* parameters) {
    LOCK;
    auto found = executable->calls.find(node);
    if (found == executable->calls.end() || found->second.kernel != parameters->kernel) return INVALID_VALUE;
    // Launches before this one have a copy.
    return call_of(parameters, found->second);
}
API cuGraphLaunch(Executable* executable, void* handle) {
    LOCK;
    if (!current) return INVALID_CONTEXT;
    std::vector<Call> calls;
    for (const Node* node : executable->order) calls.push_back(executable->calls.at(node));
    Stream* before = executable->stream;
    uint64_t position = executable->position;
    executable->stream = stream_of(handle);
    executable->position = executable->stream->pushed + 1;
    bool waits = before && before != executable->stream;
    return enqueue(handle, [=]() mutable {
        if (waits) drain(before, position);
        for (Call& call : calls) call.run();
    });
}
API cuGraphExecDestroy(Executable* executable) {
    LOCK;
    driver().used[executable->device] -= EXECUTABLE_BYTES;
    delete executable;
    return SUCCESS;
}
API cuGraphDestroy(Graph* graph) {
    LOCK;
    delete graph;
    return SUCCESS;
}
API cuGetErrorName(Result error, const char** name) {
    *name = error_name(error);
    return SUCCESS;
}
API cuGetErrorString(Result error, const char** text) {
    *text = error_name(error);
    return SUCCESS;
}
