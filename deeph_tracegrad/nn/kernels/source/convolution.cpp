// A DeepH-E3 convolution in one pass over tiles of edges: features of both atoms gathered and turned into the edges'
// frames, times Y(bond) by one matrix product for each |m| (nn/tensor_product.py), gated and scaled (nn/gate.py), and, for
// atoms, turned back and summed. What a tile needs stays in a core's cache.
#include "layout.hpp"

namespace {

constexpr int64_t kTile = 64;

constexpr double kSilu = 1.6791767923989418, kTanh = 1.5937334472592695, kSigmoid = 1.8467055342154763;  // see gate.py

struct Convolution {
  Layout node, edge, before, after;
  int64_t scalars, pseudoscalars, gated;
  const int64_t* offsets;  // of the matrices: [bond, on-site][both atoms, edge][|m|]

  explicit Convolution(Plan& plan)
      : node(plan), edge(plan), before(plan), after(plan), scalars(plan.number()), pseudoscalars(plan.number()),
        gated(plan.number()), offsets(plan.numbers(4 * orders())) {}

  int64_t orders() const { return before.degree() + 1; }
  int64_t offset(bool on_site, int source, int64_t m) const { return offsets[(2 * on_site + source) * orders() + m]; }
  int64_t rows(int source, int64_t m) const { return source ? edge.channels_of(m) : 2 * node.channels_of(m); }
  template <class T>
  int64_t columns(int64_t m) const { return padded<T>(before.channels_of(m)); }
};

// Where the part of each |m| begins in a tile: +m, then -m.
template <class T, class Width>
std::vector<int64_t> tile_starts(int64_t orders, Width width) {
  std::vector<int64_t> starts(orders + 1, 0);
  for (int64_t m = 0; m < orders; ++m) starts[m + 1] = starts[m] + kTile * (m ? 2 : 1) * width(m);
  return starts;
}

struct Tile {
  int64_t first, edges;
  bool on_site;
};

std::vector<Tile> tiles_of(int64_t on_site, int64_t edges) {
  std::vector<Tile> tiles;
  for (int64_t e = 0; e < on_site; e += kTile) tiles.push_back({e, std::min(kTile, on_site - e), true});
  for (int64_t e = on_site; e < edges; e += kTile) tiles.push_back({e, std::min(kTile, edges - e), false});
  return tiles;
}

template <class T>
struct Arguments {
  const Convolution& plan;
  const T *node, *edge;
  const int64_t* index;  // (2, R)
  const int64_t* rotations;
  const T *radial, *matrices;
  int64_t atoms, edges;
};

// Features of both atoms in the edges' frames: for each |m| (+m rows, -m rows; channels of i and j group by group).
template <class T>
void gather(const Arguments<T>& a, const Tile& tile, const std::vector<int64_t>& starts, T* ends) {
  const Layout& node = a.plan.node;
  const T* source[kLargestSize];
  T* target[kLargestSize];
  for (int64_t b = 0; b < tile.edges; ++b) {
    const int64_t e = tile.first + b;
    for (const Group& group : node.groups) {
      const T* turn = rotation<T>(a.rotations, group, e);
      for (int end = 0; end < 2; ++end) {
        const T* features = a.node + a.index[end * a.edges + e] * node.dim;
        for (int64_t p = 0; p < group.size(); ++p) {
          const int64_t m = order_of(p);
          if (m >= a.plan.orders()) {  // no output has this order: turned into a place that nobody reads
            target[p] = ends + starts[a.plan.orders()];
          } else {
            const int64_t row = b + (negative(p) ? tile.edges : 0);
            target[p] = ends + starts[m] + row * 2 * node.channels_of(m) + 2 * (group.first - node.first_channel(m)) +
                        end * group.channels;
          }
          source[p] = features + group.place[p];
        }
        rotate<T, false, false>(group.degree, turn, source, target, group.channels);
      }
    }
  }
}

template <class T>
void multiply_tile(const Arguments<T>& a, const Tile& tile, const std::vector<int64_t>& end_starts, const T* ends,
                   const std::vector<int64_t>& starts, T* result) {
  const Convolution& plan = a.plan;
  for (int64_t m = 0; m < plan.orders(); ++m) {
    const int64_t columns = plan.columns<T>(m), signs = m ? 2 : 1;
    T* out = result + starts[m];
    bool add = false;
    if (const int64_t depth = plan.rows(0, m)) {
      multiply<T>(signs * tile.edges, columns, depth, ends + end_starts[m], depth, 1,
                  a.matrices + plan.offset(tile.on_site, 0, m), columns, out, columns, add);
      add = true;
    }
    if (const int64_t depth = plan.rows(1, m)) {
      for (int64_t sign = 0; sign < signs; ++sign)
        multiply<T>(tile.edges, columns, depth,
                    a.edge + tile.first * plan.edge.dim + plan.edge.block_start[m ? 2 * m - 1 + sign : 0], plan.edge.dim, 1,
                    a.matrices + plan.offset(tile.on_site, 1, m), columns, out + sign * tile.edges * columns, columns, add);
      add = true;
    }
    if (!add) std::fill(out, out + signs * tile.edges * columns, T(0));
  }
}

// The rows of the blocks 0, +1, -1, ... of one edge in a tile.
template <class T>
void block_rows(const Convolution& plan, const Tile& tile, int64_t b, const std::vector<int64_t>& starts, T* tile_data,
                T** rows) {
  for (int64_t p = 0; p < plan.before.orders; ++p) {
    const int64_t m = order_of(p);
    rows[p] = tile_data + starts[m] + (b + (negative(p) ? tile.edges : 0)) * plan.columns<T>(m);
  }
}

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

// Adds the edges' features, turned into global coordinates, to those of their first atom.
template <class T>
void scatter(const Layout& layout, const int64_t* rotations, int64_t edge, int64_t atom, const T* features, T* total) {
  const T* source[kLargestSize];
  T* target[kLargestSize];
  for (const Group& group : layout.groups) {
    for (int64_t p = 0; p < group.size(); ++p) {
      source[p] = features + group.place[p];
      target[p] = total + atom * layout.dim + group.place[p];
    }
    rotate<T, true, true>(group.degree, rotation<T>(rotations, group, edge), source, target, group.channels);
  }
}

// Where each thread sums up: the first one in `total`, the others in memory of their own.
template <class T, int Which = 0>
std::vector<T*> one_each(int64_t count, int threads, T* total) {
  static thread_local Scratch<T> memory;
  T* others = cleared(memory, count * (threads - 1));
  std::vector<T*> parts(threads, total);
  for (int thread = 1; thread < threads; ++thread) parts[thread] = others + (thread - 1) * count;
  return parts;
}

// One sum from those of all threads, always in the same order.
template <class T>
void reduce(int64_t count, const std::vector<T*>& parts, T* total) {
  for (T* part : parts)
    if (part != total)
      for (int64_t k = 0; k < count; ++k) total[k] += part[k];
}

// saved: what `backward` needs, of `saved_size` numbers; null without gradients.
// out: (R, F), or (N, F) zeros if `summed`.
template <class T>
void forward(const Arguments<T>& a, T* saved, T* out, bool summed, int threads) {
  const Convolution& plan = a.plan;
  const auto end_starts = tile_starts<T>(plan.orders(), [&](int64_t m) { return plan.rows(0, m); });
  const auto starts = tile_starts<T>(plan.orders(), [&](int64_t m) { return plan.columns<T>(m); });
  const std::vector<Tile> tiles = tiles_of(a.atoms, a.edges);
  const int64_t count = tiles.size(), size = plan.after.dim;
  const std::vector<T*> totals = one_each(summed ? a.atoms * size : 0, threads, out);
#pragma omp parallel num_threads(threads)
  {
    static thread_local Scratch<T> ends_memory, tile_memory, row_memory;
    T* ends = ends_memory.of_size(end_starts.back() + 2 * plan.node.channels + kLanes<T>);
    T* own = tile_memory.of_size(starts.back());
    T* features = row_memory.of_size(size);
    T* rows[kLargestSize];
#pragma omp for schedule(static)
    for (int thread = 0; thread < threads; ++thread) {
      for (int64_t t = count * thread / threads; t < count * (thread + 1) / threads; ++t) {
        const Tile& tile = tiles[t];
        T* result = saved ? saved + t * starts.back() : own;
        gather(a, tile, end_starts, ends);
        multiply_tile(a, tile, end_starts, ends, starts, result);
        for (int64_t b = 0; b < tile.edges; ++b) {
          const int64_t e = tile.first + b;
          block_rows(plan, tile, b, starts, result, rows);
          T* row = summed ? features : out + e * size;
          gate(plan, rows, a.radial + e * plan.after.channels, row);
          if (summed) scatter(plan.after, a.rotations, e, a.index[e], row, totals[thread]);
        }
      }
    }
  }
  if (summed) reduce(a.atoms * size, totals, out);
}

// gradient: of `out`. node_gradient, matrices_gradient: zeros. edge_gradient: may be null.
template <class T>
void backward(const Arguments<T>& a, T* saved, const T* gradient, bool summed, T* node_gradient, T* edge_gradient,
              T* radial_gradient, T* matrices_gradient, int64_t matrices_size, int threads) {
  const Convolution& plan = a.plan;
  const auto end_starts = tile_starts<T>(plan.orders(), [&](int64_t m) { return plan.rows(0, m); });
  const auto end_gradient_starts = tile_starts<T>(plan.orders(), [&](int64_t m) { return padded<T>(plan.rows(0, m)); });
  const auto starts = tile_starts<T>(plan.orders(), [&](int64_t m) { return plan.columns<T>(m); });
  const std::vector<Tile> tiles = tiles_of(a.atoms, a.edges);
  const int64_t count = tiles.size(), size = plan.after.dim, node_size = a.atoms * plan.node.dim;

  static thread_local Scratch<T> transposed_memory;
  std::vector<int64_t> transposed_starts;
  int64_t transposed_size = 0;
  for (int which = 0; which < 4; ++which)
    for (int64_t m = 0; m < plan.orders(); ++m) {
      transposed_starts.push_back(transposed_size);
      transposed_size += plan.before.channels_of(m) * padded<T>(plan.rows(which % 2, m));
    }
  T* transposed = transposed_memory.of_size(transposed_size);
  for (int which = 0; which < 4; ++which)
    for (int64_t m = 0; m < plan.orders(); ++m)
      if (const int64_t depth = plan.rows(which % 2, m))
        transpose(depth, plan.before.channels_of(m), a.matrices + plan.offset(which / 2, which % 2, m),
                  plan.columns<T>(m), T(1), transposed + transposed_starts[which * plan.orders() + m]);

  const std::vector<T*> nodes = one_each<T, 1>(node_size, threads, node_gradient);
  const std::vector<T*> matrices = one_each<T, 2>(matrices_size, threads, matrices_gradient);
#pragma omp parallel num_threads(threads)
  {
    static thread_local Scratch<T> ends_memory, end_gradient_memory, edge_memory, tile_memory, row_memory, zero_memory;
    const T* zeros = cleared(zero_memory, plan.node.channels);
    T* ends = ends_memory.of_size(end_starts.back() + 2 * plan.node.channels + kLanes<T>);
    T* end_gradient = end_gradient_memory.of_size(end_gradient_starts.back());
    T* edge_tile = edge_memory.of_size(kTile * padded<T>(plan.edge.channels));
    T* own = cleared(tile_memory, starts.back());
    T* features = row_memory.of_size(size);
    T *rows[kLargestSize], *row_gradients[kLargestSize];
#pragma omp for schedule(static)
    for (int thread = 0; thread < threads; ++thread) {
      for (int64_t t = count * thread / threads; t < count * (thread + 1) / threads; ++t) {
        const Tile& tile = tiles[t];
        T* result = saved + t * starts.back();
        for (int64_t b = 0; b < tile.edges; ++b) {
          const int64_t e = tile.first + b;
          const T* upstream = gradient + e * size;
          if (summed) {
            const T* source[kLargestSize];
            T* target[kLargestSize];
            for (const Group& group : plan.after.groups) {
              for (int64_t p = 0; p < group.size(); ++p) {
                source[p] = gradient + a.index[e] * size + group.place[p];
                target[p] = features + group.place[p];
              }
              rotate<T, false, false>(group.degree, rotation<T>(a.rotations, group, e), source, target, group.channels);
            }
            upstream = features;
          }
          block_rows(plan, tile, b, starts, result, rows);
          block_rows(plan, tile, b, starts, own, row_gradients);
          gate_backward(plan, rows, a.radial + e * plan.after.channels, upstream, row_gradients,
                        radial_gradient + e * plan.after.channels);
        }
        gather(a, tile, end_starts, ends);
        for (int64_t m = 0; m < plan.orders(); ++m) {
          const int64_t columns = plan.columns<T>(m), inner = plan.before.channels_of(m), signs = m ? 2 : 1;
          const T* out = own + starts[m];
          if (const int64_t depth = plan.rows(0, m)) {
            const int64_t width = padded<T>(depth);
            multiply<T>(signs * tile.edges, width, inner, out, columns, 1,
                        transposed + transposed_starts[2 * tile.on_site * plan.orders() + m], width,
                        end_gradient + end_gradient_starts[m], width, false);
            multiply<T>(depth, columns, signs * tile.edges, ends + end_starts[m], 1, depth, out, columns,
                        matrices[thread] + plan.offset(tile.on_site, 0, m), columns, true);
          }
          for (int64_t sign = 0; sign < signs && m <= plan.edge.degree(); ++sign) {
            const int64_t depth = plan.rows(1, m), width = padded<T>(depth);
            const int64_t block = plan.edge.block_start[m ? 2 * m - 1 + sign : 0];
            const T* part = out + sign * tile.edges * columns;
            multiply<T>(depth, columns, tile.edges, a.edge + tile.first * plan.edge.dim + block, 1, plan.edge.dim, part,
                        columns, matrices[thread] + plan.offset(tile.on_site, 1, m), columns, true);
            if (!edge_gradient) continue;
            multiply<T>(tile.edges, width, inner, part, columns, 1,
                        transposed + transposed_starts[(2 * tile.on_site + 1) * plan.orders() + m], width, edge_tile, width,
                        false);
            for (int64_t b = 0; b < tile.edges; ++b)
              std::copy_n(edge_tile + b * width, depth, edge_gradient + (tile.first + b) * plan.edge.dim + block);
          }
        }
        for (int64_t p = plan.before.orders; edge_gradient && p < plan.edge.orders; ++p)
          for (int64_t b = 0; b < tile.edges; ++b)
            std::fill_n(edge_gradient + (tile.first + b) * plan.edge.dim + plan.edge.block_start[p], plan.edge.block_size[p],
                        T(0));
        const T* source[kLargestSize];
        T* target[kLargestSize];
        const int64_t reached = std::min(plan.orders(), plan.node.degree() + 1);
        for (int64_t b = 0; b < tile.edges; ++b) {
          const int64_t e = tile.first + b;
          for (const Group& group : plan.node.groups)
            for (int end = 0; end < 2; ++end) {
              for (int64_t p = 0; p < group.size(); ++p) {
                const int64_t m = order_of(p);
                source[p] = m >= reached ? zeros
                                         : end_gradient + end_gradient_starts[m] +
                                               (b + (negative(p) ? tile.edges : 0)) * padded<T>(plan.rows(0, m)) +
                                               2 * (group.first - plan.node.first_channel(m)) + end * group.channels;
                target[p] = nodes[thread] + a.index[end * a.edges + e] * plan.node.dim + group.place[p];
              }
              rotate<T, true, true>(group.degree, rotation<T>(a.rotations, group, e), source, target, group.channels);
            }
        }
      }
    }
  }
  reduce(node_size, nodes, node_gradient);
  reduce(matrices_size, matrices, matrices_gradient);
}

}  // namespace

extern "C" int64_t vector_bytes() { return kVectorBytes; }

// Numbers that the forward pass keeps for the backward pass.
#define DEFINE(T, NAME)                                                                                                 \
  extern "C" int64_t convolution_saved_##NAME(const int64_t* numbers, int64_t atoms, int64_t edges) {                   \
    Plan reader(numbers);                                                                                               \
    const Convolution plan(reader);                                                                                     \
    return tiles_of(atoms, edges).size() *                                                                              \
           tile_starts<T>(plan.orders(), [&](int64_t m) { return plan.columns<T>(m); }).back();                         \
  }                                                                                                                     \
  extern "C" void convolution_forward_##NAME(const int64_t* numbers, const T* node, const T* edge, const int64_t* index, \
                                             const int64_t* rotations, const T* radial, const T* matrices,              \
                                             int64_t atoms, int64_t edges, T* saved, T* out, int64_t summed,            \
                                             int64_t threads) {                                                         \
    Plan reader(numbers);                                                                                               \
    const Convolution plan(reader);                                                                                     \
    forward<T>({plan, node, edge, index, rotations, radial, matrices, atoms, edges}, saved, out, summed, threads);      \
  }                                                                                                                     \
  extern "C" void convolution_backward_##NAME(                                                                          \
      const int64_t* numbers, const T* node, const T* edge, const int64_t* index, const int64_t* rotations,             \
      const T* radial, const T* matrices, int64_t atoms, int64_t edges, T* saved, const T* gradient, int64_t summed,    \
      T* node_gradient, T* edge_gradient, T* radial_gradient, T* matrices_gradient, int64_t matrices_size,              \
      int64_t threads) {                                                                                                \
    Plan reader(numbers);                                                                                               \
    const Convolution plan(reader);                                                                                     \
    backward<T>({plan, node, edge, index, rotations, radial, matrices, atoms, edges}, saved, gradient, summed,          \
                node_gradient, edge_gradient, radial_gradient, matrices_gradient, matrices_size, threads);              \
  }
DEFINE(float, float32)
DEFINE(double, float64)
