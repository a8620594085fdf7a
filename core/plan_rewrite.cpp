// The rewrites of a plan: each looks for a few calls by their types and fields, and for who else uses what disappears.
#include <algorithm>

#include "tandem/core/conv_pack.h"
#include "tandem/core/plan.h"

namespace tandem {
namespace {

bool uses(const Call& call, const View& view) {
  return std::any_of(call.operands.begin(), call.operands.end(),
                     [&](const Call::Operand& o) { return overlap(*o.view, view); });
}

// The calls but `maker` that use what it makes.
std::vector<size_t> users_of(const Program& program, size_t maker, const View& result) {
  std::vector<size_t> users;
  for (size_t i = 0; i < program.calls.size(); ++i) {
    if (i != maker && uses(*program.calls[i], result)) users.push_back(i);
  }
  return users;
}

template <class K>
K* as(Program& program, size_t i) {
  return as<K>(*program.calls[i]);
}
template <class K>
void put(Program& program, size_t i, const K& k) {
  program.calls[i] = std::make_unique<CallOf<K>>(k);
}
void erase(Program& program, size_t i) { program.calls.erase(program.calls.begin() + static_cast<int64_t>(i)); }

// Nothing that call `i` reads is written between it and call `j`.
bool still_same(const Program& program, size_t i, size_t j) {
  for (const Call::Operand& read : program.calls[i]->operands) {
    for (size_t k = i + 1; k < j; ++k) {
      for (const Call::Operand& o : program.calls[k]->operands) {
        if (writes(o.use) && overlap(*o.view, *read.view)) return false;
      }
    }
  }
  return true;
}

// Either may run first: neither writes what the other uses.
bool independent(const Call& a, const Call& b) {
  for (const Call::Operand& u : a.operands) {
    for (const Call::Operand& v : b.operands) {
      if ((writes(u.use) || writes(v.use)) && overlap(*u.view, *v.view)) return false;
    }
  }
  return true;
}
// Call `j` may run right behind call `i`, which comes before it.
bool can_follow(const Program& program, size_t i, size_t j) {
  for (size_t k = i + 1; k < j; ++k) {
    if (!independent(*program.calls[k], *program.calls[j])) return false;
  }
  return i < j;
}

bool is_activation(UnaryOp op) { return op == UnaryOp::relu || op == UnaryOp::sigmoid || op == UnaryOp::tanh; }

// ---- fuse --------------------------------------------------------------------------------------------------

// BnApply, Unary -> BnAct. Nobody else reads what lies between.
void fuse_norm_and_activation(Program& program) {
  for (size_t i = 0; i < program.calls.size(); ++i) {
    const BnApply* norm = as<BnApply>(program, i);
    if (!norm || !program.temporary(norm->y.data)) continue;
    const std::vector<size_t> users = users_of(program, i, norm->y);
    const Unary* act = users.size() == 1 ? as<Unary>(program, users[0]) : nullptr;
    if (!act || !is_activation(act->op) || !(act->x.dims == norm->y.dims) || !still_same(program, i, users[0]))
      continue;
    put(program, users[0],
        BnAct{norm->x, norm->mean, norm->rstd, norm->gamma, norm->beta, act->y, norm->axis, act->op});
    erase(program, i--);
  }
}

// UnaryGrad, BnGradSums, BnGradApply -> BnActGradSums, BnActGradApply, of an activation that BnAct computed.
void fuse_their_gradients(Program& program) {
  for (size_t i = 0; i < program.calls.size(); ++i) {
    const UnaryGrad* grad = as<UnaryGrad>(program, i);
    if (!grad || !program.temporary(grad->dx.data)) continue;
    const BnAct* forward = nullptr;
    size_t at = 0;
    for (size_t j = 0; j < i; ++j) {
      if (const BnAct* f = as<BnAct>(program, j); f && f->y.data == grad->saved.data) forward = f, at = j;
    }
    const std::vector<size_t> users = users_of(program, i, grad->dx);
    if (!forward || users.size() != 2) continue;
    const BnGradSums* sums = as<BnGradSums>(program, users[0]);
    const BnGradApply* apply = as<BnGradApply>(program, users[1]);
    if (!sums || !apply || !apply->sums || apply->mask || sums->x.data != forward->x.data ||
        apply->x.data != forward->x.data || !(sums->x.dims == forward->x.dims) || !(sums->dy.dims == grad->dx.dims))
      continue;
    if (!still_same(program, at, users[1]) || !still_same(program, i, users[1])) continue;
    const BnAct f = *forward;  // copies: put() frees what the pointers point to
    const UnaryGrad g = *grad;
    const BnGradSums s = *sums;
    const BnGradApply a = *apply;
    const RowsIn y = g.op == UnaryOp::relu ? RowsIn{} : RowsIn(g.saved);
    put(program, users[0],
        BnActGradSums{y, g.dy, s.x, s.mean, s.rstd, f.gamma, f.beta, s.sums, s.axis, g.op, s.dgamma, s.dbeta});
    put(program, users[1],
        BnActGradApply{y, g.dy, a.x, a.mean, a.rstd, f.gamma, f.beta, a.sums, a.dx, a.axis, a.n, g.op});
    erase(program, i--);
  }
}

// What a convolution can do to its x by itself: batch norm, relu, or both.
struct Prologue {
  RowsIn x;  // what it then reads
  In mean, rstd, gamma, beta;
  bool relu;
};

template <class K>
void read_through(Program& program, size_t i, const Prologue& p) {
  const K* conv = as<K>(program, i);
  if (!conv) return;
  K changed = *conv;
  changed.x = p.x;
  changed.mean = p.mean, changed.rstd = p.rstd, changed.gamma = p.gamma, changed.beta = p.beta;
  changed.relu = p.relu;
  put(program, i, changed);
}

// The call reads `result` as a convolution's x that has no prologue yet, or as relu's output for its gradient, to
// which its input is as good.
bool can_read_through(Program& program, size_t i, const View& result, const Prologue& p) {
  if (const Conv* conv = as<Conv>(program, i))
    return conv->x.data == result.data && conv->x.dims == result.dims && !conv->mean && !conv->relu;
  if (const ConvDw* conv = as<ConvDw>(program, i)) {
    return conv->x.data == result.data && conv->x.dims == result.dims && conv->dy.data != result.data && !conv->mean &&
           !conv->relu;
  }
  const UnaryGrad* grad = as<UnaryGrad>(program, i);
  return grad && !p.mean && grad->op == UnaryOp::relu && grad->saved.data == result.data &&
         grad->saved.dims == result.dims && grad->dy.data != result.data;
}

// An activation that convolutions alone read is not stored: they compute it while they copy x, in backward again.
void fuse_into_convolutions(Program& program) {
  for (size_t i = 0; i < program.calls.size(); ++i) {
    View result;
    Prologue p{};
    if (const BnAct* norm = as<BnAct>(program, i); norm && norm->act == UnaryOp::relu && norm->axis == 3) {
      result = norm->y;
      p = {norm->x, norm->mean, norm->rstd, norm->gamma, norm->beta, true};
    } else if (const BnApply* plain = as<BnApply>(program, i); plain && plain->axis == 3) {
      result = plain->y;
      p = {plain->x, plain->mean, plain->rstd, plain->gamma, plain->beta, false};
    } else if (const Unary* act = as<Unary>(program, i); act && act->op == UnaryOp::relu) {
      result = act->y;
      p = {act->x, {}, {}, {}, {}, true};
    }
    if (!result.data || result.dims.rank() != 4 || !program.temporary(result.data)) continue;
    const std::vector<size_t> users = users_of(program, i, result);
    if (!std::all_of(users.begin(), users.end(), [&](size_t user) {
          return can_read_through(program, user, result, p) && still_same(program, i, user);
        }))
      continue;
    for (const size_t user : users) {
      read_through<Conv>(program, user, p);
      read_through<ConvDw>(program, user, p);
      if (const UnaryGrad* grad = as<UnaryGrad>(program, user))
        put(program, user, UnaryGrad{p.x, grad->dy, grad->dx, grad->op});
    }
    erase(program, i--);
  }
}

// Fill(1), CrossEntropyGrad -> CrossEntropyGrad alone.
void fold_seed_of_loss(Program& program) {
  for (size_t i = 0; i < program.calls.size(); ++i) {
    const Fill* seed = as<Fill>(program, i);
    if (!seed || seed->value != 1 || seed->y.dims.numel() != 1 || !program.temporary(seed->y.data)) continue;
    const std::vector<size_t> users = users_of(program, i, seed->y);
    const CrossEntropyGrad* grad = users.size() == 1 ? as<CrossEntropyGrad>(program, users[0]) : nullptr;
    if (!grad || grad->dloss.data != seed->y.data) continue;
    put(program, users[0], CrossEntropyGrad{grad->x, grad->label, {}, grad->dx, grad->smoothing, grad->scale});
    erase(program, i--);
  }
}

// ---- pack --------------------------------------------------------------------------------------------------

template <class K>
bool pack_weights_of(Program& program, size_t i, bool turned) {
  const K* conv = as<K>(program, i);
  if (!conv || conv->packed) return false;
  const int64_t size = conv_packed_size(conv->w.dtype, conv->w.dims, conv->window, conv->groups, turned);
  if (size == 0) return false;
  K changed = *conv;
  changed.packed = program.make({size}, conv->w);
  const ConvPack pack{conv->w, changed.packed, conv->window, turned};
  put(program, i, changed);
  program.calls.insert(program.calls.begin() + static_cast<int64_t>(i), std::make_unique<CallOf<ConvPack>>(pack));
  return true;
}

// ---- order -------------------------------------------------------------------------------------------------

bool runs_by_rows(const Call& call) { return row_chunks(call).chunks() > 1; }

// Moves a call on the whole batch up (-1) or down (+1) past a run of row-wise ones, if it can pass all of the run.
// Returns whether it did.
bool move_out_of_the_way(Program& program, size_t& from, int64_t step) {
  auto& calls = program.calls;
  size_t to = from, next = from + static_cast<size_t>(step);
  bool passed = false;
  for (; next < calls.size() && independent(*calls[from], *calls[next]); next += static_cast<size_t>(step)) {
    if (passed && !runs_by_rows(*calls[next])) break;
    passed |= runs_by_rows(*calls[next]);
    to = next;
  }
  if (!passed || (next < calls.size() && runs_by_rows(*calls[next]))) return false;
  const auto begin = calls.begin();
  const auto at = [&](size_t i) { return begin + static_cast<int64_t>(i); };
  if (step < 0)
    std::rotate(at(to), at(from), at(from) + 1);
  else
    std::rotate(at(from), at(from) + 1, at(to) + 1);
  from = to;
  return true;
}

// ---- recompute ---------------------------------------------------------------------------------------------

// Fewer operations a value than reading it from memory takes time for.
bool is_cheap(const Conv& conv) {
  constexpr int64_t kMostProducts = 16;
  return conv.w.dims.numel() <= kMostProducts * conv.w.dims[0] && !conv.mean && !conv.relu;
}

// The call takes `result` row by row, in chunks like those of `cut`.
bool reads_rows(const Call& call, const View& result, const Chunking& cut) {
  const Chunking own = row_chunks(call);
  return own.n == cut.n && own.rows == cut.rows &&
         std::all_of(call.operands.begin(), call.operands.end(),
                     [&](const Call::Operand& o) { return o.view->data != result.data || o.use == Use::rows_in; });
}

}  // namespace

void fuse(Program& program) {
  fuse_norm_and_activation(program);
  fuse_their_gradients(program);
  fuse_into_convolutions(program);
  fold_seed_of_loss(program);
}

// CrossEntropy, CrossEntropyGrad -> CrossEntropyBoth.
void fuse_loss(Program& program) {
  for (size_t i = 0; i < program.calls.size(); ++i) {
    const CrossEntropy* loss = as<CrossEntropy>(program, i);
    if (!loss) continue;
    for (const size_t j : users_of(program, i, loss->x)) {
      const CrossEntropyGrad* grad = as<CrossEntropyGrad>(program, j);
      if (!grad || grad->dloss || grad->label.data != loss->label.data || grad->smoothing != loss->smoothing ||
          !can_follow(program, i, j))
        continue;
      put(program, i, CrossEntropyBoth{loss->x, loss->label, loss->loss, grad->dx, grad->smoothing, grad->scale});
      erase(program, j);
      break;
    }
  }
}

void recompute(Program& program) {
  for (size_t i = 0; i < program.calls.size(); ++i) {
    const Conv* conv = as<Conv>(program, i);
    if (!conv || !is_cheap(*conv) || !program.temporary(conv->y.data)) continue;
    const Conv original = *conv;
    const Chunking cut = row_chunks(*program.calls[i]);
    const std::vector<size_t> users = users_of(program, i, original.y);
    if (cut.chunks() == 1 || !std::all_of(users.begin(), users.end(), [&](size_t user) {
          return reads_rows(*program.calls[user], original.y, cut) && still_same(program, i, user);
        }))
      continue;
    std::vector<int> group = groups(program, true);
    const int own = group[i];
    int last = own;
    View result = original.y;
    for (size_t j = i + 1; j < program.calls.size(); ++j) {
      if (!uses(*program.calls[j], original.y) || group[j] == own) continue;
      if (group[j] != last) {
        last = group[j];
        Conv again = original;
        again.y = program.make(original.y.dims, original.y);
        result = again.y;
        program.calls.insert(program.calls.begin() + static_cast<int64_t>(j), std::make_unique<CallOf<Conv>>(again));
        group.insert(group.begin() + static_cast<int64_t>(j), last);
        ++j;
      }
      for (const Call::Operand& o : program.calls[j]->operands) {
        if (o.view->data == original.y.data) o.view->data = result.data;
      }
    }
  }
}

void pack(Program& program) {
  for (size_t i = 0; i < program.calls.size(); ++i) {
    if (pack_weights_of<Conv>(program, i, false) || pack_weights_of<ConvDx>(program, i, true)) ++i;
  }
}

void order(Program& program) {
  for (size_t i = 0; i < program.calls.size(); ++i) {
    size_t at = i;
    bool moves = !runs_by_rows(*program.calls[i]);
    // Packed weights go as far as they can. Of others, what they read and write would have to live longer for that.
    while (moves) moves = move_out_of_the_way(program, at, -1) && as<ConvPack>(*program.calls[at]);
  }
  for (size_t i = program.calls.size(); i-- > 0;) {
    size_t at = i;
    if (!runs_by_rows(*program.calls[i])) move_out_of_the_way(program, at, +1);
  }
}

}  // namespace tandem
