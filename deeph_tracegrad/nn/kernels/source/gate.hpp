// The gate (nn/gate.py) with the scaling by functions of the length, for one edge of a tile.
#pragma once

#include "bonds.hpp"

namespace {

constexpr double kSilu = 1.6791767923989418, kTanh = 1.5937334472592695, kSigmoid = 1.8467055342154763;  // see gate.py

// before the gate: scalars, gates, pseudoscalars, vectors; after it: scalars, pseudoscalars, vectors
template <class T>
void gate(const Convolution& plan, T* const* in, const T* radial, T* out) {
  constexpr int64_t lanes = kLanes<T>;
  const int64_t plain = plan.scalars + plan.pseudoscalars;
  const T* zero = in[0];
  for (int64_t c = 0; c < plan.scalars; c += lanes) {
    const int64_t count = plan.scalars - c;
    const Vector<T> x = load_part(zero + c, count);
    store_part(out + c, x * sigmoid<T>(x) * T(kSilu) * load_part(radial + c, count), count);
  }
  for (int64_t c = 0; c < plan.pseudoscalars; c += lanes) {
    const int64_t count = plan.pseudoscalars - c, at = plan.scalars + c;
    const Vector<T> tanh = hyperbolic_tangent<T>(load_part(zero + at + plan.gated, count));
    store_part(out + at, tanh * T(kTanh) * load_part(radial + at, count), count);
  }
  for (int64_t c = 0; c < plan.gated; c += lanes) {
    const int64_t count = plan.gated - c, at = plain + c;
    const Vector<T> factor =
        sigmoid<T>(load_part(zero + plan.scalars + c, count)) * T(kSigmoid) * load_part(radial + at, count);
    store_part(out + at, factor * load_part(zero + at + plan.gated, count), count);
    for (int64_t p = 1; p < plan.after.orders; ++p) {
      const int64_t first = plan.after.first_channel(order_of(p)) - plain;
      T* block = out + plan.after.block_start[p];
      if (c >= first) {
        store_part(block + c - first, factor * load_part(in[p] + c - first, count), count);
      } else if (c + lanes > first) {  // the vector straddles the first channel of this order
        T some[lanes];
        store(some, factor);
        for (int64_t k = first; k < std::min(c + lanes, plan.gated); ++k) block[k - first] = some[k - c] * in[p][k - first];
      }
    }
  }
}

// From the gradient of `out` to those of `in` and `radial`.
template <class T>
void gate_backward(const Convolution& plan, T* const* in, const T* radial, const T* gradient, T* const* in_gradient,
                   T* radial_gradient) {
  constexpr int64_t lanes = kLanes<T>;
  const int64_t plain = plan.scalars + plan.pseudoscalars;
  const T* zero = in[0];
  for (int64_t c = 0; c < plan.scalars; c += lanes) {
    const int64_t count = plan.scalars - c;
    const Vector<T> x = load_part(zero + c, count), g = load_part(gradient + c, count) * T(kSilu);
    const Vector<T> s = sigmoid<T>(x);
    store_part(radial_gradient + c, g * x * s, count);
    store_part(in_gradient[0] + c, g * load_part(radial + c, count) * s * (T(1) + x * (T(1) - s)), count);
  }
  for (int64_t c = 0; c < plan.pseudoscalars; c += lanes) {
    const int64_t count = plan.pseudoscalars - c, at = plan.scalars + c;
    const Vector<T> g = load_part(gradient + at, count) * T(kTanh);
    const Vector<T> tanh = hyperbolic_tangent<T>(load_part(zero + at + plan.gated, count));
    store_part(radial_gradient + at, g * tanh, count);
    store_part(in_gradient[0] + at + plan.gated, g * load_part(radial + at, count) * (T(1) - tanh * tanh), count);
  }
  for (int64_t c = 0; c < plan.gated; c += lanes) {
    const int64_t count = std::min(lanes, plan.gated - c), at = plain + c;
    const Vector<T> s = sigmoid<T>(load_part(zero + plan.scalars + c, count)) * T(kSigmoid);
    const Vector<T> w = load_part(radial + at, count), factor = s * w;
    const Vector<T> g = load_part(gradient + at, count);
    Vector<T> sum = g * load_part(zero + at + plan.gated, count);
    store_part(in_gradient[0] + at + plan.gated, g * factor, count);
    for (int64_t p = 1; p < plan.after.orders; ++p) {
      const int64_t first = plan.after.first_channel(order_of(p)) - plain;
      const T* block = gradient + plan.after.block_start[p];
      if (c >= first) {
        const Vector<T> h = load_part(block + c - first, count);
        sum += h * load_part(in[p] + c - first, count);
        store_part(in_gradient[p] + c - first, h * factor, count);
      } else if (c + lanes > first) {
        T some[lanes], more[lanes];
        store(some, factor);
        store(more, sum);
        for (int64_t k = first; k < c + count; ++k) {
          more[k - c] += block[k - first] * in[p][k - first];
          in_gradient[p][k - first] = block[k - first] * some[k - c];
        }
        sum = load(more);
      }
    }
    store_part(radial_gradient + at, sum * s, count);
    store_part(in_gradient[0] + plan.scalars + c, sum * w * s * (T(1) - s / T(kSigmoid)), count);
  }
}

// The rows of the blocks 0, +1, -1, ... of one edge in a tile.
template <class T>
void block_rows(const Convolution& plan, const Tile& tile, int64_t half, int64_t b, const std::vector<int64_t>& starts,
                T* tile_data, T** rows) {
  for (int64_t p = 0; p < plan.before.orders; ++p) {
    const int64_t m = order_of(p);
    rows[p] = tile_data + starts[m] + tile.row(half, p, b) * plan.columns<T>(m);
  }
}

}  // namespace
