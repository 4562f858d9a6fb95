#pragma once
// Every optimizer once, under the settings that tests of what they have in common go through.

#include "optim_support.h"

namespace hone::optim_test {

using namespace optim;

struct Case {
  const char* label;
  Make make;  // a setting of small steps, for comparisons
  Make fast;  // for convergence
  enum Kind { elementwise, by_norms, factored, matrices } kind = elementwise;
};

inline const std::vector<Case>& cases() {
  static const std::vector<Case> table = {
      {"SGD", make<SGD>(SGDOptions{.lr = 0.01}), make<SGD>(SGDOptions{.lr = 0.002})},
      {"SGD momentum", make<SGD>(SGDOptions{.lr = 0.01, .momentum = 0.9, .weight_decay = 0.1}),
       make<SGD>(SGDOptions{.lr = 5e-4, .momentum = 0.9})},
      {"Adam", make<Adam>(AdamOptions{.lr = 0.01}), make<Adam>(AdamOptions{.lr = 0.03})},
      {"AMSGrad", make<Adam>(AdamOptions{.lr = 0.01, .beta2 = 0.9, .amsgrad = true}),
       make<Adam>(AdamOptions{.lr = 0.3, .amsgrad = true})},
      {"AdamW", make<AdamW>(AdamWOptions{.lr = 0.01}), make<AdamW>(AdamWOptions{.lr = 0.03, .weight_decay = 1e-4})},
      {"Adagrad", make<Adagrad>(AdagradOptions{.lr = 0.02, .initial_accumulator = 0.1}),
       make<Adagrad>(AdagradOptions{.lr = 0.5})},
      {"Adadelta", make<Adadelta>(AdadeltaOptions{.weight_decay = 0.1}), make<Adadelta>(AdadeltaOptions{.lr = 2})},
      {"RMSprop", make<RMSprop>(RMSpropOptions{}), make<RMSprop>(RMSpropOptions{.lr = 0.02})},
      {"RMSprop momentum", make<RMSprop>(RMSpropOptions{.momentum = 0.5}),
       make<RMSprop>(RMSpropOptions{.lr = 0.005, .momentum = 0.8})},
      {"RMSprop centred", make<RMSprop>(RMSpropOptions{.eps = 1e-2, .centered = true}),
       make<RMSprop>(RMSpropOptions{.lr = 0.01, .eps = 1e-2, .centered = true})},
      {"RMSprop centred momentum", make<RMSprop>(RMSpropOptions{.eps = 1e-2, .momentum = 0.5, .centered = true}),
       make<RMSprop>(RMSpropOptions{.lr = 0.005, .eps = 1e-2, .momentum = 0.5, .centered = true})},
      {"Adamax", make<Adamax>(AdamaxOptions{.lr = 0.01}), make<Adamax>(AdamaxOptions{.lr = 0.03})},
      {"NAdam", make<NAdam>(NAdamOptions{.lr = 0.01}), make<NAdam>(NAdamOptions{.lr = 0.03})},
      {"RAdam", make<RAdam>(RAdamOptions{.lr = 0.01, .beta2 = 0.9}), make<RAdam>(RAdamOptions{.lr = 5e-3})},
      {"Rprop", make<Rprop>(RpropOptions{}), make<Rprop>(RpropOptions{})},
      {"ASGD", make<ASGD>(ASGDOptions{.lambd = 0.1, .t0 = 2}), make<ASGD>(ASGDOptions{.lr = 0.002, .lambd = 1e-6})},
      {"Lion", make<Lion>(LionOptions{.lr = 0.01, .weight_decay = 0.1}), make<Lion>(LionOptions{.lr = 0.01})},
      {"ScheduleFreeAdamW", make<ScheduleFreeAdamW>(ScheduleFreeAdamWOptions{.lr = 0.01, .warmup_steps = 4}),
       make<ScheduleFreeAdamW>(ScheduleFreeAdamWOptions{.lr = 0.1})},
      {"LARS", make<LARS>(LARSOptions{.trust_coefficient = 0.1}),
       make<LARS>(LARSOptions{.lr = 0.1, .trust_coefficient = 0.05}), Case::by_norms},
      {"LAMB", make<LAMB>(LAMBOptions{.lr = 0.01}), make<LAMB>(LAMBOptions{.lr = 0.03, .weight_decay = 0}),
       Case::by_norms},
      {"Adafactor", make<Adafactor>(AdafactorOptions{.eps1 = 1e-3}), make<Adafactor>(AdafactorOptions{.lr = 0.03}),
       Case::factored},
      {"Muon", make<Muon>(MuonOptions{.lr = 0.02}), make<Muon>(MuonOptions{.lr = 0.02, .weight_decay = 0}),
       Case::matrices},
  };
  return table;
}
using Optimizers = std::unique_ptr<Optimizer>;

// Around the borders of vectors and blocks, in several pieces of work, and empty ones between.
inline std::vector<Shape> shapes_of(const Case& c) {
  if (c.kind == Case::matrices) return {{1, 1}, {0, 3}, {3, 0}, {7, 9}, {64, 1}, {33, 65}, {200, 150}};
  std::vector<Shape> shapes = {{1}, {3}, {0}, {7}, {8}, {9}, {31}, {64, 1}, {257}, {}, {40000}};
  if (c.kind == Case::factored)
    for (const Shape& s : {Shape{0, 4}, {4, 0}, {1, 9}, {6, 5, 3, 3}, {2, 130, 260}}) shapes.push_back(s);
  return shapes;
}
inline std::vector<Shape> small_shapes(const Case& c) {
  if (c.kind == Case::matrices) return {{6, 5}, {3, 7}};
  return {{6, 5}, {7}};
}

}  // namespace hone::optim_test
