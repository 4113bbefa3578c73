// The scheduler of the emulator: runs the blocks of a launch one after the other, the warps of a block in an order that
// the seed decides, each until all its lanes wait for the block or have returned.
//
// Warps go in ascending order under seeds 0 and 1, in descending order under 2 and 3, and so do the lanes of a warp;
// after every barrier the order starts anew. So for any two threads that touch the same memory between two barriers,
// each comes first under some of these seeds, and if that matters the results differ. Higher seeds draw the order, and
// let go of a warp now and then when its lanes have met.
#include "machine.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>

// Marks that only a build under the address sanitizer takes notice of.
#include <sanitizer/asan_interface.h>

#include "fiber.h"

__thread uint3 blockIdx;
__thread uint3 blockDim;
__thread uint3 gridDim;

namespace emu {

__thread Thread* current;
__thread unsigned char* shared_memory;
__thread size_t shared_bytes;
__thread bool eager_copies;

namespace {

constexpr unsigned WARP = 32;
constexpr size_t STACK_BYTES = 64 << 10;
constexpr size_t PAGE_BYTES = 4096;
// Every stack begins at another offset in its first page: equal offsets would contend for the same few cache sets.
constexpr size_t STAGGER_BYTES = 320;
constexpr size_t GUARD_BYTES = 1024;
constexpr unsigned char POISON = 0xff;  // NaN in f32, f16 and bf16, -1 as an integer
constexpr unsigned char GUARD = 0xa5;
constexpr size_t MAX_REPORT_BYTES = 2048;

// Lanes that wait for each other in an operation of the warp.
struct Rendezvous {
    uint32_t mask;
    uint32_t arrived;
    const WarpOp* op;
    Site site;
};

struct Warp {
    uint32_t ready;
    uint32_t at_barrier;
    uint32_t returned;
    // A lane waits in one at most, so there are fewer than lanes, and `arguments` serves them all.
    unsigned n_open;
    Rendezvous open[WARP];
    void* arguments[WARP];
};

bool same(Site a, Site b) { return a.line == b.line && (a.file == b.file || std::strcmp(a.file, b.file) == 0); }

uint64_t next_random(uint64_t& state) {  // splitmix64
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

class Machine {
public:
    ~Machine();
    const char* run(const Launch& launch);
    void barrier(Site site);
    void warp_operation(const WarpOp& op, uint32_t mask, void* argument, Site site);
    void check_shared(const void* address, size_t bytes, const char* what, Site site);
    [[noreturn]] void fail(Site site, const char* format, va_list values);

private:
    static void thread_main();
    void resize(unsigned n_threads, size_t shared_bytes);
    void prepare_fibers();
    void release_stacks();
    void run_block(const Launch& launch);
    void order_warps();
    unsigned next_lane(uint32_t ready) const;
    void suspend();
    void leave_for_scheduler();
    void release_barrier();
    static void begin_rendezvous(Warp& warp, const WarpOp& op, uint32_t mask, Site site);
    __attribute__((noinline)) void complete_rendezvous(Warp& warp, Rendezvous& open);
    void thread_returned();
    void report_deadlock();
    void check_guard();
    void start_report();
    void report(const char* format, ...) __attribute__((format(printf, 2, 3)));
    void report(const char* format, va_list values);

    Launch launch_{};
    std::vector<Thread> threads_;
    std::vector<Fiber> fibers_;
    std::vector<Warp> warps_;
    std::vector<unsigned> order_;
    Fiber scheduler_;
    unsigned char* stacks_ = nullptr;
    unsigned n_stacks_ = 0;
    unsigned char* shared_ = nullptr;
    size_t shared_capacity_ = 0;
    uint64_t random_ = 0;
    bool descending_ = false;
    bool drawn_ = false;
    unsigned first_lane_ = 0;
    unsigned n_threads_ = 0;
    unsigned n_live_ = 0;
    unsigned n_at_barrier_ = 0;
    Site barrier_site_{};
    bool phase_over_ = false;
    bool failed_ = false;
    std::string report_;
};

// This OS thread's machine while it runs a launch; a plain pointer, as every wait of every thread asks for it.
__thread Machine* machine;

Machine::~Machine() {
    release_stacks();
    std::free(shared_);
}

void Machine::release_stacks() {
    if (!stacks_) return;
    ASAN_UNPOISON_MEMORY_REGION(stacks_, n_stacks_ * STACK_BYTES);
    munmap(stacks_, n_stacks_ * STACK_BYTES);
}

void Machine::resize(unsigned n_threads, size_t shared_bytes) {
    n_threads_ = n_threads;
    threads_.resize(std::max<size_t>(threads_.size(), n_threads));
    fibers_.resize(threads_.size());
    warps_.resize(n_threads / WARP);
    order_.resize(n_threads / WARP);
    if (n_threads > n_stacks_) {
        release_stacks();
        void* memory = mmap(nullptr, n_threads * STACK_BYTES, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) std::abort();
        stacks_ = static_cast<unsigned char*>(memory);
        n_stacks_ = n_threads;
        // A thread that overruns its stack faults instead of writing into its neighbour's.
        for (unsigned i = 0; i < n_threads; i++) mprotect(stacks_ + i * STACK_BYTES, PAGE_BYTES, PROT_NONE);
        prepare_fibers();
    }
    if (!shared_ || shared_bytes + GUARD_BYTES > shared_capacity_) {
        std::free(shared_);
        shared_capacity_ = (shared_bytes + 2 * GUARD_BYTES - 1) / GUARD_BYTES * GUARD_BYTES;
        shared_ = static_cast<unsigned char*>(std::aligned_alloc(GUARD_BYTES, shared_capacity_));
        if (!shared_) std::abort();
    }
}

void Machine::prepare_fibers() {
    ASAN_UNPOISON_MEMORY_REGION(stacks_, n_stacks_ * STACK_BYTES);
    for (unsigned i = 0; i < n_stacks_; i++) {
        const size_t bytes = STACK_BYTES - i % WARP * STAGGER_BYTES;
        fibers_[i].prepare(stacks_ + i * STACK_BYTES, bytes, thread_main);
    }
}

const char* Machine::run(const Launch& launch) {
    launch_ = launch;
    // The fibers of a failed launch stand somewhere in its kernel.
    if (failed_) prepare_fibers();
    resize(launch.threads, launch.shared_bytes);
    scheduler_.adopt_own_stack();
    random_ = launch.seed;
    descending_ = launch.seed & 2;
    drawn_ = launch.seed >= 4;
    first_lane_ = 0;
    eager_copies = launch.seed & 1;
    shared_memory = shared_;
    shared_bytes = launch.shared_bytes;
    blockDim = {launch.threads, 1, 1};
    gridDim = launch.blocks;
    report_.clear();
    failed_ = false;
    const uint64_t per_plane = uint64_t(launch.blocks.x) * launch.blocks.y, n_blocks = per_plane * launch.blocks.z;
    for (uint64_t i = 0; i < n_blocks && !failed_; i++) {
        const uint64_t block = descending_ ? n_blocks - 1 - i : i;
        blockIdx = {unsigned(block % launch.blocks.x), unsigned(block % per_plane / launch.blocks.x),
                    unsigned(block / per_plane)};
        run_block(launch);
    }
    return failed_ ? report_.c_str() : nullptr;
}

void Machine::run_block(const Launch& launch) {
    std::memset(shared_, POISON, launch.shared_bytes);
    std::memset(shared_ + launch.shared_bytes, GUARD, GUARD_BYTES);
    ASAN_POISON_MEMORY_REGION(shared_ + launch.shared_bytes, GUARD_BYTES);
    for (unsigned i = 0; i < n_threads_; i++) {
        Thread& thread = threads_[i];
        thread.index = {i, 0, 0};
        thread.number = i;
        thread.wait = Wait::none;
        thread.queue.copies.clear();
        thread.queue.groups.clear();
    }
    for (Warp& warp : warps_) {
        warp.ready = ~0u;
        warp.at_barrier = warp.returned = 0;
        warp.n_open = 0;
    }
    n_live_ = n_threads_;
    n_at_barrier_ = 0;
    while (n_live_ > 0 && !failed_) {
        order_warps();
        phase_over_ = false;
        bool ran = false;
        for (unsigned i : order_) {
            Warp& warp = warps_[i];
            if (!warp.ready) continue;
            ran = true;
            const unsigned lane = i * WARP + next_lane(warp.ready);
            current = &threads_[lane];
            scheduler_.switch_to(fibers_[lane]);
            if (phase_over_ || failed_) break;
        }
        if (!ran) report_deadlock();
    }
    ASAN_UNPOISON_MEMORY_REGION(shared_ + launch.shared_bytes, GUARD_BYTES);
    if (!failed_) check_guard();
}

void Machine::order_warps() {
    const unsigned n = unsigned(order_.size());
    for (unsigned i = 0; i < n; i++) order_[i] = descending_ ? n - 1 - i : i;
    if (!drawn_) return;
    for (unsigned i = n; i > 1; i--) std::swap(order_[i - 1], order_[next_random(random_) % i]);
    first_lane_ = unsigned(next_random(random_) % WARP);
}

unsigned Machine::next_lane(uint32_t ready) const {
    if (descending_) return WARP - 1 - unsigned(__builtin_clz(ready));
    const uint32_t from_first = ready >> first_lane_ << first_lane_;
    return unsigned(__builtin_ctz(from_first ? from_first : ready));
}

// Goes on with the next lane of this warp, which may be the same one; with another warp if none is ready.
void Machine::suspend() {
    const unsigned self = current->number;
    const uint32_t ready = warps_[self / WARP].ready;
    if (!ready) return leave_for_scheduler();
    const unsigned next = self / WARP * WARP + next_lane(ready);
    if (next == self) return;
    current = &threads_[next];
    fibers_[self].switch_to(fibers_[next]);
}

void Machine::leave_for_scheduler() { fibers_[current->number].switch_to(scheduler_); }

// A fiber lives on between blocks and launches: it is resumed for the next block where it waited at the end of the last.
void Machine::thread_main() {
    Fiber::arrived(nullptr);
    for (;;) {
        machine->launch_.entry(machine->launch_.arguments);
        machine->thread_returned();
    }
}

void Machine::thread_returned() {
    const unsigned self = current->number;
    const uint32_t bit = 1u << self % WARP;
    Warp& warp = warps_[self / WARP];
    warp.ready &= ~bit;
    warp.returned |= bit;
    for (unsigned i = 0; i < warp.n_open; i++) {
        const Rendezvous& open = warp.open[i];
        if (open.mask & bit) emu::fail(open.site, "%s waits for a lane that has returned", open.op->name);
    }
    n_live_--;
    if (n_at_barrier_ > 0 && n_at_barrier_ == n_live_) release_barrier();
    else suspend();
}

void Machine::barrier(Site site) {
    Thread& self = *current;
    if (n_at_barrier_ > 0 && !same(site, barrier_site_)) {
        emu::fail(site, "divergent barrier: other threads of the block wait at %s:%d", barrier_site_.file,
                  barrier_site_.line);
    }
    barrier_site_ = site;
    self.site = site;
    self.wait = Wait::barrier;
    const uint32_t bit = 1u << self.number % WARP;
    Warp& warp = warps_[self.number / WARP];
    warp.ready &= ~bit;
    warp.at_barrier |= bit;
    if (++n_at_barrier_ == n_live_) release_barrier();
    else suspend();
    self.wait = Wait::none;
}

void Machine::release_barrier() {
    n_at_barrier_ = 0;
    for (Warp& warp : warps_) {
        warp.ready |= warp.at_barrier;
        warp.at_barrier = 0;
    }
    phase_over_ = true;
    leave_for_scheduler();
}

void Machine::warp_operation(const WarpOp& op, uint32_t mask, void* argument, Site site) {
    Thread& self = *current;
    const unsigned lane = self.number % WARP;
    const uint32_t bit = 1u << lane;
    Warp& warp = warps_[self.number / WARP];
    if (!(mask & bit)) emu::fail(site, "%s: the lane is not in its own mask %08x", op.name, mask);
    unsigned i = 0;
    while (i < warp.n_open && warp.open[i].mask != mask) i++;
    Rendezvous& open = warp.open[i];
    if (i == warp.n_open) {
        begin_rendezvous(warp, op, mask, site);
    } else if (open.op != &op || (op.aligned && !same(open.site, site))) {
        emu::fail(site, "%s meets %s of other lanes at %s:%d", op.name, open.op->name, open.site.file,
                  open.site.line);
    }
    open.arrived |= bit;
    warp.arguments[lane] = argument;
    if (open.arrived == mask) return complete_rendezvous(warp, open);
    self.op = &op;
    self.site = site;
    self.mask = mask;
    self.wait = Wait::warp;
    warp.ready &= ~bit;
    suspend();
    self.wait = Wait::none;
}

void Machine::begin_rendezvous(Warp& warp, const WarpOp& op, uint32_t mask, Site site) {
    if (mask & warp.returned) {
        emu::fail(site, "%s waits for lanes that have returned: mask %08x, returned %08x", op.name, mask,
                  warp.returned);
    }
    warp.open[warp.n_open++] = {mask, 0, &op, site};
}

void Machine::complete_rendezvous(Warp& warp, Rendezvous& open) {
    const Rendezvous complete = open;
    open = warp.open[--warp.n_open];
    void* lanes[WARP];
    for (unsigned lane = 0; lane < WARP; lane++) {
        lanes[lane] = complete.mask >> lane & 1 ? warp.arguments[lane] : nullptr;
    }
    complete.op->combine(lanes, complete.mask, complete.site);
    warp.ready |= complete.mask;
    if (drawn_ && next_random(random_) % 8 == 0) leave_for_scheduler();
    else suspend();
}

void Machine::check_shared(const void* address, size_t bytes, const char* what, Site site) {
    const size_t offset = size_t(static_cast<const unsigned char*>(address) - shared_);
    if (reinterpret_cast<uintptr_t>(address) % bytes) {
        emu::fail(site, "%s: the shared address is not a multiple of %zu (offset %zd)", what, bytes, ssize_t(offset));
    }
    if (offset > launch_.shared_bytes || bytes > launch_.shared_bytes - offset) {
        emu::fail(site, "%s: offset %zd is outside the block's %zu bytes of shared memory", what, ssize_t(offset),
                  launch_.shared_bytes);
    }
}

void Machine::check_guard() {
    const unsigned char* guard = shared_ + launch_.shared_bytes;
    const unsigned char* broken = std::find_if(guard, guard + GUARD_BYTES, [](unsigned char b) { return b != GUARD; });
    if (broken == guard + GUARD_BYTES) return;
    start_report();
    report(": a write to offset %zu, past the block's %zu bytes of shared memory", size_t(broken - shared_),
           launch_.shared_bytes);
}

void Machine::report_deadlock() {
    start_report();
    report(": deadlock");
    // One line for each place that threads wait at.
    std::vector<bool> told(n_threads_);
    for (unsigned i = 0; i < n_threads_ && report_.size() < MAX_REPORT_BYTES; i++) {
        const Thread& first = threads_[i];
        if (first.wait == Wait::none || told[i]) continue;
        const auto alike = [&](const Thread& other) {
            return other.wait == first.wait && same(other.site, first.site) &&
                   (first.wait == Wait::barrier ||
                    (other.mask == first.mask && other.op == first.op && other.number / WARP == i / WARP));
        };
        unsigned n = 0;
        for (unsigned j = i; j < n_threads_; j++) {
            if (alike(threads_[j])) told[j] = true, n++;
        }
        if (first.wait == Wait::barrier) {
            report("\n  %u threads, first thread %u, wait in __syncthreads at %s:%d", n, i, first.site.file,
                   first.site.line);
            continue;
        }
        uint32_t arrived = 0;
        for (unsigned j = i; j < i / WARP * WARP + WARP; j++) arrived |= uint32_t(alike(threads_[j])) << j % WARP;
        report("\n  lanes %08x of warp %u wait in %s at %s:%d for lanes %08x", arrived, i / WARP, first.op->name,
               first.site.file, first.site.line, first.mask & ~arrived);
    }
}

void Machine::start_report() {
    failed_ = true;
    report_.clear();
    report("%s, block (%u, %u, %u)", launch_.kernel, blockIdx.x, blockIdx.y, blockIdx.z);
}

void Machine::report(const char* format, ...) {
    va_list values;
    va_start(values, format);
    report(format, values);
    va_end(values);
}

void Machine::report(const char* format, va_list values) {
    char text[512];
    std::vsnprintf(text, sizeof text, format, values);
    report_ += text;
}

void Machine::fail(Site site, const char* format, va_list values) {
    start_report();
    report(", thread %u, %s:%d: ", current->number, site.file, site.line);
    report(format, values);
    leave_for_scheduler();
    std::abort();
}

}  // namespace

void barrier(Site site) { machine->barrier(site); }

void warp_operation(const WarpOp& op, uint32_t mask, void* argument, Site site) {
    machine->warp_operation(op, mask, argument, site);
}

void check_shared(const void* address, size_t bytes, const char* what, Site site) {
    machine->check_shared(address, bytes, what, site);
}

void fail(Site site, const char* format, ...) {
    va_list values;
    va_start(values, format);
    machine->fail(site, format, values);
}

const char* run(const Launch& launch) {
    // Kept between launches: stacks are warm, and memory is asked for once.
    thread_local Machine kept;
    machine = &kept;
    return kept.run(launch);
}

}  // namespace emu
