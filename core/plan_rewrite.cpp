// The rewrites of a plan: each looks for a few calls by their types and fields, and for who else uses what disappears.
#include <algorithm>

#include "tandem/core/plan.h"

namespace tandem {
namespace {

bool writes(Use use) { return use != Use::in && use != Use::rows_in; }

// ---- order -------------------------------------------------------------------------------------------------

// Either may run first: neither writes what the other uses.
bool independent(const Call& a, const Call& b) {
  for (const Call::Operand& u : a.operands) {
    for (const Call::Operand& v : b.operands) {
      if (u.view->data == v.view->data && (writes(u.use) || writes(v.use))) return false;
    }
  }
  return true;
}

bool by_rows(const Call& call) { return row_chunks(call).chunks() > 1; }

// Moves a call on the whole batch up (-1) or down (+1), past at least one row-wise call, next to one that is not.
void move_out_of_the_way(Program& program, size_t from, int64_t step) {
  auto& calls = program.calls;
  size_t to = from;
  bool passed = false;
  for (size_t next = from + static_cast<size_t>(step); next < calls.size() && independent(*calls[from], *calls[next]);
       next += static_cast<size_t>(step)) {
    if (passed && !by_rows(*calls[next])) break;
    passed |= by_rows(*calls[next]);
    to = next;
  }
  if (!passed) return;
  const auto begin = calls.begin();
  const auto at = [&](size_t i) { return begin + static_cast<int64_t>(i); };
  if (step < 0) std::rotate(at(to), at(from), at(from) + 1);
  else std::rotate(at(from), at(from) + 1, at(to) + 1);
}

}  // namespace

void order(Program& program) {
  for (size_t i = 0; i < program.calls.size(); ++i) {
    if (!by_rows(*program.calls[i])) move_out_of_the_way(program, i, -1);
  }
  for (size_t i = program.calls.size(); i-- > 0;) {
    if (!by_rows(*program.calls[i])) move_out_of_the_way(program, i, +1);
  }
}

}  // namespace tandem
