#pragma once
// Everything a program needs.

#include "hone/core/allocator.h"
#include "hone/core/autograd.h"
#include "hone/core/basic_ops.h"
#include "hone/core/op.h"
#include "hone/core/parallel.h"
#include "hone/core/parameter.h"
#include "hone/core/random.h"
#include "hone/core/serialize.h"
#include "hone/core/tensor.h"
#include "hone/ops/arithmetic.h"
#include "hone/ops/matmul.h"
#include "hone/ops/reduce.h"
#include "hone/ops/shape_ops.h"
#include "hone/ops/unary.h"
