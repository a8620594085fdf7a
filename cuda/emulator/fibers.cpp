// Blocks of fibers. Linux on x86-64: a switch saves what the System V ABI asks a callee to keep.
#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <numeric>
#include <random>
#include <string>
#include <utility>

#include "tandem/cuda/block.h"

extern "C" void tandem_switch_fiber(void** from, void* to);
asm(R"(
.text
.globl tandem_switch_fiber
.type tandem_switch_fiber, @function
tandem_switch_fiber:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size tandem_switch_fiber, .-tandem_switch_fiber
)");

namespace emulator {
namespace {

unsigned the_seed = 0;
int skipped = -1;
std::vector<std::string> barriers;
std::map<std::pair<const char*, int>, int> barrier_of_place;

}  // namespace

void fault(const char* sentence) {
  std::fprintf(stderr, "CUDA emulator: %s\n", sentence);
  std::abort();
}

void set_seed(unsigned seed) { the_seed = seed; }
int barriers_met() { return static_cast<int>(barriers.size()); }
const char* barrier_name(int barrier) { return barriers[static_cast<size_t>(barrier)].c_str(); }
void skip_barrier(int barrier) { skipped = barrier; }

}  // namespace emulator

namespace tandem::cuda {
namespace {

using ::emulator::fault;

constexpr size_t kStack = 64 * 1024;

enum class State { ready, at_barrier, in_warp, done };

struct Fiber {
  void* stack_pointer = nullptr;
  State state = State::done;
  Block block{};
  int exchanges = 0;
};

struct Warp {
  unsigned char offered[2][kWarp][8];
  int arrived = 0;
};

// The block that runs; one at a time.
struct Running {
  std::vector<Fiber> fibers;
  std::vector<Warp> warps;
  char* stacks = nullptr;
  size_t stacks_made = 0;
  void* scheduler = nullptr;
  int current = 0;
  const emulator::Grid* grid = nullptr;
  const void* kernel = nullptr;
  void* shared = nullptr;

  Fiber& fiber() { return fibers[static_cast<size_t>(current)]; }
  void wait(State state) {
    Fiber& me = fiber();
    me.state = state;
    tandem_switch_fiber(&me.stack_pointer, scheduler);
  }
};
Running running;

void fiber_main() {
  running.grid->body(running.kernel, running.fiber().block, running.shared);
  running.wait(State::done);
  fault("a finished thread ran again");
}

void make_fiber(int thread, int block) {
  Fiber& fiber = running.fibers[static_cast<size_t>(thread)];
  char* top = running.stacks + static_cast<size_t>(thread + 1) * kStack;
  void** sp = reinterpret_cast<void**>(top) - 2;  // aligned to 16 before the return address is taken off
  *sp = reinterpret_cast<void*>(fiber_main);
  sp -= 6;  // the registers that a switch takes off
  std::fill(sp, sp + 6, nullptr);
  fiber = {sp, State::ready, {block, thread, running.grid->threads}, 0};
}

void run_block(int block, const std::vector<int>& order) {
  const int threads = running.grid->threads;
  running.fibers.resize(static_cast<size_t>(threads));
  running.warps.assign(static_cast<size_t>(threads / kWarp), {});
  for (int t = 0; t < threads; ++t) make_fiber(t, block);
  for (int done = 0; done < threads;) {
    int ran = 0;
    for (const int t : order) {
      Fiber& fiber = running.fibers[static_cast<size_t>(t)];
      if (fiber.state != State::ready) continue;
      ++ran;
      running.current = t;
      tandem_switch_fiber(&running.scheduler, fiber.stack_pointer);
      done += fiber.state == State::done;
    }
    if (ran > 0) continue;
    if (done > 0) fault("some threads of a block ended while others wait");
    for (Fiber& fiber : running.fibers) {
      if (fiber.state != State::at_barrier) fault("some threads of a block wait at a barrier, others in a shuffle");
      fiber.state = State::ready;
    }
  }
}

}  // namespace

void Block::sync(const char* file, int line) const {
  // By address first: one place has an address in each file that was compiled with it.
  const std::pair<const char*, int> address{file, line};
  auto found = ::emulator::barrier_of_place.find(address);
  if (found == ::emulator::barrier_of_place.end()) {
    const std::string path = file, name = path.substr(path.rfind('/') + 1) + ":" + std::to_string(line);
    std::vector<std::string>& barriers = ::emulator::barriers;
    const auto same = std::find(barriers.begin(), barriers.end(), name);
    found = ::emulator::barrier_of_place.emplace(address, static_cast<int>(same - barriers.begin())).first;
    if (same == barriers.end()) barriers.push_back(name);
  }
  if (found->second != ::emulator::skipped) running.wait(State::at_barrier);
}

void Block::exchange(unsigned char (&bytes)[8], int other) const {
  Fiber& me = running.fiber();
  Warp& warp = running.warps[static_cast<size_t>(thread / kWarp)];
  if (other / kWarp != thread / kWarp) fault("a shuffle with a thread of another warp");
  auto& offered = warp.offered[me.exchanges++ % 2];
  std::memcpy(offered[thread % kWarp], bytes, sizeof(bytes));
  if (++warp.arrived < kWarp) {
    running.wait(State::in_warp);
  } else {
    warp.arrived = 0;
    for (int lane = 0; lane < kWarp; ++lane) {
      Fiber& fiber = running.fibers[static_cast<size_t>(thread / kWarp * kWarp + lane)];
      if (fiber.state == State::in_warp) fiber.state = State::ready;
    }
  }
  std::memcpy(bytes, offered[other % kWarp], sizeof(bytes));
}

void emulator::run(const Grid& grid, const void* kernel) {
  if (grid.threads % kWarp != 0 || grid.threads > 1024) fault("a block has whole warps, and at most 1024 threads");
  std::mt19937 random(::emulator::the_seed);
  std::vector<int> blocks(static_cast<size_t>(grid.blocks)), threads(static_cast<size_t>(grid.threads));
  std::iota(blocks.begin(), blocks.end(), 0);
  std::iota(threads.begin(), threads.end(), 0);
  if (::emulator::the_seed != 0) {
    std::shuffle(blocks.begin(), blocks.end(), random);
    std::shuffle(threads.begin(), threads.end(), random);
  }
  if (!grid.waits) {
    for (const int b : blocks) {
      for (const int t : threads) grid.body(kernel, {b, t, grid.threads}, nullptr);
    }
    return;
  }
  if (running.stacks_made < threads.size()) {
    running.stacks_made = 1024;
    void* memory =
        mmap(nullptr, 1024 * kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) fault("no memory for the stacks of a block");
    running.stacks = static_cast<char*>(memory);
  }
  alignas(16) static unsigned char shared[48 * 1024];
  running.grid = &grid;
  running.kernel = kernel;
  running.shared = shared;
  for (const int b : blocks) {
    std::memset(shared, 0xff, grid.shared);  // NaN
    run_block(b, threads);
  }
}

}  // namespace tandem::cuda
