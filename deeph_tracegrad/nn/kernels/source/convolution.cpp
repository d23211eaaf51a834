// A DeepH-E3 convolution in one pass over tiles of bonds: features of both atoms gathered and turned into the edges'
// frames, times Y(bond) by one matrix product for each |m| (nn/tensor_product.py), gated and scaled (nn/gate.py), and,
// for atoms, turned back and summed. What a tile needs stays in a core's cache.
//
// A bond is two edges, i -> j and j -> i, whose frames differ by a half turn about their first axis (frames.py). All
// that it changes is the sign r of each row m and the sign c of each channel. From the features x of the atoms, in the
// frame of i -> j, and y of the edges, each in its own,
//   z_ij = A x_i + B x_j + C y_ij  and  r z_ji = A c x_j + B c x_i + C r y_ji,  hence
//   z_ij +- r z_ji = (A +- B c) (x_i +- c x_j) + C (y_ij +- r y_ji):
// for sum and difference one product each with features of atoms instead of two. On site x_i = x_j, and it is A + B.
#include "layout.hpp"

namespace {

constexpr int64_t kTile = 64;  // edges

constexpr double kSilu = 1.6791767923989418, kTanh = 1.5937334472592695, kSigmoid = 1.8467055342154763;  // see gate.py

struct Convolution {
  Layout node, edge, before, after;
  int64_t scalars, pseudoscalars, gated;
  const int64_t* offsets;  // of the matrices: [bond, on-site][atoms, edge][|m|]; of atoms A + B c, then A - B c

  explicit Convolution(Plan& plan)
      : node(plan), edge(plan), before(plan), after(plan), scalars(plan.number()), pseudoscalars(plan.number()),
        gated(plan.number()), offsets(plan.numbers(4 * orders())) {}

  int64_t orders() const { return before.degree() + 1; }
  int64_t offset(bool on_site, int source, int64_t m) const { return offsets[(2 * on_site + source) * orders() + m]; }
  template <class T>
  int64_t columns(int64_t m) const { return padded<T>(before.channels_of(m)); }
};

// Where the part of each |m| begins in a tile.
template <class T, class Width>
std::vector<int64_t> tile_starts(int64_t orders, Width width) {
  std::vector<int64_t> starts(orders + 1, 0);
  for (int64_t m = 0; m < orders; ++m) starts[m + 1] = starts[m] + kTile * (m ? 2 : 1) * width(m);
  return starts;
}

// Bonds, or edges on site. `halves` of a bond: sum and difference, or its edges; on site there is one.
struct Tile {
  int64_t first, count, halves;
  bool on_site() const { return halves == 1; }
  int64_t rows(int64_t m) const { return count * (m ? 2 : 1); }  // of one half, in the part of |m|: +m, then -m
  int64_t row(int64_t half, int64_t p, int64_t b) const { return half * rows(p) + (negative(p) ? count : 0) + b; }
};

std::vector<Tile> tiles_of(int64_t on_site, int64_t edges) {
  std::vector<Tile> tiles;
  const int64_t bonds = (edges - on_site) / 2;
  for (int64_t e = 0; e < on_site; e += kTile) tiles.push_back({e, std::min(kTile, on_site - e), 1});
  for (int64_t b = 0; b < bonds; b += kTile / 2) tiles.push_back({b, std::min(kTile / 2, bonds - b), 2});
  return tiles;
}

template <class T>
struct Arguments {
  const Convolution& plan;
  const T *node, *edge;
  const int64_t *index, *bonds;  // (2, R), (2, B)
  const int64_t* rotations;
  const T *radial, *matrices;  // radial: of the atoms' edges on site, then of the bonds
  int64_t atoms, edges;

  int64_t edge_of(const Tile& tile, int64_t half, int64_t b) const {
    return tile.on_site() ? tile.first + b : bonds[half * (edges - atoms) / 2 + tile.first + b];
  }
  int64_t radial_row(const Tile& tile, int64_t b) const { return tile.first + b + (tile.on_site() ? 0 : atoms); }
};

// The sign of a row m of the half turn, and that of a channel. The latter is (-1)^l of pseudo channels with m = 0, which
// are not turned by a quarter (nn/layout.py): `half_of`.
int64_t row_sign(int64_t p) { return negative(p) == (order_of(p) % 2 == 0) && p ? -1 : 1; }
int64_t channel_sign(const Group& group) { return (group.degree % 2 == 0) == group.natural ? 1 : -1; }
int64_t half_of(const Tile& tile, int64_t half, const Group& group, int64_t p) {
  return !tile.on_site() && p == 0 && !group.natural ? 1 - half : half;
}

// sum, difference = scale (one +- sign other)
template <class T>
void split(int64_t count, const T* one, const T* other, T sign, T scale, T* sum, T* difference) {
  for (int64_t c = 0; c < count; c += kLanes<T>) {
    const Vector<T> x = scale * load_part(one + c, count - c), y = scale * sign * load_part(other + c, count - c);
    store_part(sum + c, x + y, count - c);
    store_part(difference + c, x - y, count - c);
  }
}

// The transpose: one = scale (sum + difference), other = scale sign (sum - difference).
template <class T>
void join(int64_t count, const T* sum, const T* difference, T sign, T scale, T* one, T* other) {
  for (int64_t c = 0; c < count; c += kLanes<T>) {
    const Vector<T> x = scale * load_part(sum + c, count - c), y = scale * load_part(difference + c, count - c);
    store_part(one + c, x + y, count - c);
    store_part(other + c, sign * (x - y), count - c);
  }
}

// Features of both atoms in the bonds' frames, sums and differences.
template <class T>
void gather_atoms(const Arguments<T>& a, const Tile& tile, const std::vector<int64_t>& starts, T* both, T* ends) {
  const Layout& node = a.plan.node;
  const T* source[kLargestSize];
  T* target[kLargestSize];
  for (int64_t b = 0; b < tile.count; ++b) {
    const int64_t e = a.edge_of(tile, 0, b);
    const T *one = a.node + a.index[e] * node.dim, *other = a.node + a.index[a.edges + e] * node.dim;
    for (const Group& group : node.groups)
      for (int64_t half = 0; half < tile.halves; ++half) {
        for (int64_t p = 0; p < group.size(); ++p) {
          const int64_t m = order_of(p), place = group.place[p];
          if (!tile.on_site() && half == 0)
            split<T>(group.channels, one + place, other + place, channel_sign(group), 1, both + place,
                     both + node.dim + place);
          source[p] = (tile.on_site() ? one : both + half * node.dim) + place;
          target[p] = m < a.plan.orders() ? ends + starts[m] + group.first - node.first_channel(m) +
                                                tile.row(half_of(tile, half, group, p), p, b) * node.channels_of(m)
                                          : ends + starts.back();  // no output has this order, and nobody reads there
        }
        rotate<T, false, false>(group.degree, rotation<T>(a.rotations, group, e), source, target, group.channels);
      }
  }
}

// Features of the edges, sums and differences.
template <class T>
void gather_edges(const Arguments<T>& a, const Tile& tile, const std::vector<int64_t>& starts, T* rows) {
  const Layout& edge = a.plan.edge;
  for (int64_t p = 0; p < std::min(a.plan.before.orders, edge.orders); ++p) {
    const int64_t size = edge.block_size[p];
    T* part = rows + starts[order_of(p)];
    for (int64_t b = 0; b < tile.count; ++b) {
      const T* one = a.edge + a.edge_of(tile, 0, b) * edge.dim + edge.block_start[p];
      T* sum = part + tile.row(0, p, b) * size;
      if (tile.on_site()) {
        std::copy_n(one, size, sum);
      } else {
        const T* other = a.edge + a.edge_of(tile, 1, b) * edge.dim + edge.block_start[p];
        split<T>(size, one, other, row_sign(p), 1, sum, part + tile.row(1, p, b) * size);
      }
    }
  }
}

template <class T>
void multiply_tile(const Arguments<T>& a, const Tile& tile, const std::vector<int64_t>& end_starts, const T* ends,
                   const std::vector<int64_t>& edge_starts, const T* edges, const std::vector<int64_t>& starts,
                   T* result) {
  const Convolution& plan = a.plan;
  for (int64_t m = 0; m < plan.orders(); ++m) {
    const int64_t columns = plan.columns<T>(m), rows = tile.rows(m);
    const int64_t end_depth = plan.node.channels_of(m), edge_depth = plan.edge.channels_of(m);
    T* out = result + starts[m];
    if (!end_depth && !edge_depth) std::fill_n(out, tile.halves * rows * columns, T(0));
    for (int64_t half = 0; end_depth && half < tile.halves; ++half)
      multiply<T>(rows, columns, end_depth, ends + end_starts[m] + half * rows * end_depth, end_depth, 1,
                  a.matrices + plan.offset(tile.on_site(), 0, m) + half * end_depth * columns, columns,
                  out + half * rows * columns, columns, false);
    if (edge_depth)
      multiply<T>(tile.halves * rows, columns, edge_depth, edges + edge_starts[m], edge_depth, 1,
                  a.matrices + plan.offset(tile.on_site(), 1, m), columns, out, columns, end_depth > 0);
    for (int64_t p = m ? 2 * m - 1 : 0; !tile.on_site() && p <= 2 * m; ++p) {
      T *sum = out + tile.row(0, p, 0) * columns, *difference = out + tile.row(1, p, 0) * columns;
      join<T>(tile.count * columns, sum, difference, row_sign(p), T(0.5), sum, difference);
    }
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
  const auto end_starts = tile_starts<T>(plan.orders(), [&](int64_t m) { return plan.node.channels_of(m); });
  const auto edge_starts = tile_starts<T>(plan.orders(), [&](int64_t m) { return plan.edge.channels_of(m); });
  const auto starts = tile_starts<T>(plan.orders(), [&](int64_t m) { return plan.columns<T>(m); });
  const std::vector<Tile> tiles = tiles_of(a.atoms, a.edges);
  const int64_t count = tiles.size(), size = plan.after.dim;
  const std::vector<T*> totals = one_each(summed ? a.atoms * size : 0, threads, out);
#pragma omp parallel num_threads(threads)
  {
    static thread_local Scratch<T> both_memory, ends_memory, edges_memory, tile_memory, row_memory;
    T* both = both_memory.of_size(2 * plan.node.dim);
    T* ends = ends_memory.of_size(end_starts.back() + plan.node.channels);
    T* edges = edges_memory.of_size(edge_starts.back());
    T* own = tile_memory.of_size(starts.back());
    T* features = row_memory.of_size(size);
    T* rows[kLargestSize];
#pragma omp for schedule(static)
    for (int thread = 0; thread < threads; ++thread) {
      for (int64_t t = count * thread / threads; t < count * (thread + 1) / threads; ++t) {
        const Tile& tile = tiles[t];
        T* result = saved ? saved + t * starts.back() : own;
        gather_atoms(a, tile, end_starts, both, ends);
        gather_edges(a, tile, edge_starts, edges);
        multiply_tile(a, tile, end_starts, ends, edge_starts, edges, starts, result);
        for (int64_t half = 0; half < tile.halves; ++half)
          for (int64_t b = 0; b < tile.count; ++b) {
            const int64_t e = a.edge_of(tile, half, b);
            block_rows(plan, tile, half, b, starts, result, rows);
            T* row = summed ? features : out + e * size;
            gate(plan, rows, a.radial + a.radial_row(tile, b) * plan.after.channels, row);
            if (summed) scatter(plan.after, a.rotations, e, a.index[e], row, totals[thread]);
          }
      }
    }
  }
  if (summed) reduce(a.atoms * size, totals, out);
}

// The gradients of a tile's results, of its sums and differences, from those of `out`.
template <class T>
void gate_tile_backward(const Arguments<T>& a, const Tile& tile, const std::vector<int64_t>& starts, T* saved,
                        const T* gradient, bool summed, T* features, T* radial_row, T* own, T* radial_gradient) {
  const Convolution& plan = a.plan;
  const int64_t size = plan.after.dim, channels = plan.after.channels;
  T *rows[kLargestSize], *row_gradients[kLargestSize], *target[kLargestSize];
  const T* source[kLargestSize];
  for (int64_t half = 0; half < tile.halves; ++half)
    for (int64_t b = 0; b < tile.count; ++b) {
      const int64_t e = a.edge_of(tile, half, b);
      const T* upstream = gradient + e * size;
      if (summed) {
        for (const Group& group : plan.after.groups) {
          for (int64_t p = 0; p < group.size(); ++p) {
            source[p] = gradient + a.index[e] * size + group.place[p];
            target[p] = features + group.place[p];
          }
          rotate<T, false, false>(group.degree, rotation<T>(a.rotations, group, e), source, target, group.channels);
        }
        upstream = features;
      }
      block_rows(plan, tile, half, b, starts, saved, rows);
      block_rows(plan, tile, half, b, starts, own, row_gradients);
      T* of_bond = radial_gradient + a.radial_row(tile, b) * channels;
      gate_backward(plan, rows, a.radial + a.radial_row(tile, b) * channels, upstream, row_gradients,
                    half ? radial_row : of_bond);
      for (int64_t c = 0; half && c < channels; ++c) of_bond[c] += radial_row[c];
    }
  for (int64_t p = 0; !tile.on_site() && p < plan.before.orders; ++p) {
    const int64_t columns = plan.columns<T>(order_of(p));
    T *one = own + starts[order_of(p)] + tile.row(0, p, 0) * columns, *other = one + tile.rows(p) * columns;
    split<T>(tile.count * columns, one, other, row_sign(p), T(0.5), one, other);
  }
}

// The edges' own gradients in the blocks of |m| from those of sums and differences.
template <class T>
void write_edges(const Arguments<T>& a, const Tile& tile, int64_t m, const T* rows, int64_t width, T* edge_gradient) {
  const Layout& edge = a.plan.edge;
  for (int64_t p = m ? 2 * m - 1 : 0; p <= 2 * m; ++p)
    for (int64_t b = 0; b < tile.count; ++b) {
      const T* sum = rows + tile.row(0, p, b) * width;
      T* one = edge_gradient + a.edge_of(tile, 0, b) * edge.dim + edge.block_start[p];
      if (tile.on_site()) {
        std::copy_n(sum, edge.block_size[p], one);
      } else {
        T* other = edge_gradient + a.edge_of(tile, 1, b) * edge.dim + edge.block_start[p];
        join<T>(edge.block_size[p], sum, rows + tile.row(1, p, b) * width, row_sign(p), 1, one, other);
      }
    }
}

// Adds the atoms' gradients from those of sums and differences, turned back.
template <class T>
void scatter_atoms(const Arguments<T>& a, const Tile& tile, const std::vector<int64_t>& starts, const T* end_gradient,
                   const T* zeros, T* both, T* nodes) {
  const Layout& node = a.plan.node;
  const T* source[kLargestSize];
  T* target[kLargestSize];
  for (int64_t b = 0; b < tile.count; ++b) {
    const int64_t e = a.edge_of(tile, 0, b);
    for (const Group& group : node.groups)
      for (int64_t half = 0; half < tile.halves; ++half) {
        for (int64_t p = 0; p < group.size(); ++p) {
          const int64_t m = order_of(p);
          source[p] = m < a.plan.orders()
                          ? end_gradient + starts[m] + group.first - node.first_channel(m) +
                                tile.row(half_of(tile, half, group, p), p, b) * padded<T>(node.channels_of(m))
                          : zeros;
          target[p] = both + half * node.dim + group.place[p];
        }
        rotate<T, true, false>(group.degree, rotation<T>(a.rotations, group, e), source, target, group.channels);
        for (int64_t p = 0; half && p < group.size(); ++p)
          join<T>(group.channels, target[p] - node.dim, target[p], channel_sign(group), 1, target[p] - node.dim,
                  target[p]);
      }
    for (int64_t half = 0; half < tile.halves; ++half) {
      T* total = nodes + a.index[half * a.edges + e] * node.dim;
      for (int64_t f = 0; f < node.dim; ++f) total[f] += both[half * node.dim + f];
    }
  }
}

// gradient: of `out`. node_gradient, matrices_gradient: zeros. edge_gradient: may be null.
template <class T>
void backward(const Arguments<T>& a, T* saved, const T* gradient, bool summed, T* node_gradient, T* edge_gradient,
              T* radial_gradient, T* matrices_gradient, int64_t matrices_size, int threads) {
  const Convolution& plan = a.plan;
  const auto end_starts = tile_starts<T>(plan.orders(), [&](int64_t m) { return plan.node.channels_of(m); });
  const auto end_gradient_starts =
      tile_starts<T>(plan.orders(), [&](int64_t m) { return padded<T>(plan.node.channels_of(m)); });
  const auto edge_starts = tile_starts<T>(plan.orders(), [&](int64_t m) { return plan.edge.channels_of(m); });
  const auto starts = tile_starts<T>(plan.orders(), [&](int64_t m) { return plan.columns<T>(m); });
  const std::vector<Tile> tiles = tiles_of(a.atoms, a.edges);
  const int64_t count = tiles.size(), node_size = a.atoms * plan.node.dim;

  // [bond, on-site][atoms, atoms, edge][|m|]: the atoms' matrices of sums and of differences, and the edges'
  static thread_local Scratch<T> transposed_memory;
  std::vector<int64_t> transposed_starts{0};
  for (int which = 0; which < 6; ++which)
    for (int64_t m = 0; m < plan.orders(); ++m)
      transposed_starts.push_back(transposed_starts.back() +
                                  plan.before.channels_of(m) *
                                      padded<T>((which % 3 == 2 ? plan.edge : plan.node).channels_of(m)));
  T* transposed = transposed_memory.of_size(transposed_starts.back());
  for (int which = 0; which < 6; ++which)
    for (int64_t m = 0; m < plan.orders(); ++m) {
      const bool on_site = which / 3, of_edge = which % 3 == 2, difference = which % 3 == 1;
      const int64_t depth = (of_edge ? plan.edge : plan.node).channels_of(m), columns = plan.columns<T>(m);
      if (!(on_site && difference))
        transpose(depth, plan.before.channels_of(m),
                  a.matrices + plan.offset(on_site, of_edge, m) + (difference ? depth * columns : 0), columns, T(1),
                  transposed + transposed_starts[which * plan.orders() + m]);
    }

  const std::vector<T*> nodes = one_each<T, 1>(node_size, threads, node_gradient);
  const std::vector<T*> matrices = one_each<T, 2>(matrices_size, threads, matrices_gradient);
#pragma omp parallel num_threads(threads)
  {
    static thread_local Scratch<T> both_memory, ends_memory, end_gradient_memory, edges_memory, edge_memory, tile_memory,
        row_memory, radial_memory, zero_memory;
    const T* zeros = cleared(zero_memory, plan.node.channels);
    T* both = both_memory.of_size(2 * plan.node.dim);
    T* ends = ends_memory.of_size(end_starts.back() + plan.node.channels);
    T* end_gradient = end_gradient_memory.of_size(end_gradient_starts.back());
    T* edges = edges_memory.of_size(edge_starts.back());
    T* edge_tile = edge_memory.of_size(2 * kTile * padded<T>(plan.edge.channels));
    T* own = cleared(tile_memory, starts.back());
    T* features = row_memory.of_size(plan.after.dim);
    T* radial_row = radial_memory.of_size(plan.after.channels);
#pragma omp for schedule(static)
    for (int thread = 0; thread < threads; ++thread) {
      for (int64_t t = count * thread / threads; t < count * (thread + 1) / threads; ++t) {
        const Tile& tile = tiles[t];
        gate_tile_backward(a, tile, starts, saved + t * starts.back(), gradient, summed, features, radial_row, own,
                           radial_gradient);
        gather_atoms(a, tile, end_starts, both, ends);
        gather_edges(a, tile, edge_starts, edges);
        for (int64_t m = 0; m < plan.orders(); ++m) {
          const int64_t columns = plan.columns<T>(m), inner = plan.before.channels_of(m), rows = tile.rows(m);
          const T* out = own + starts[m];
          const auto matrix = [&](int which) {
            return transposed + transposed_starts[(3 * tile.on_site() + which) * plan.orders() + m];
          };
          const int64_t end_depth = plan.node.channels_of(m), end_width = padded<T>(end_depth);
          for (int64_t half = 0; end_depth && half < tile.halves; ++half) {
            const T* part = out + half * rows * columns;
            multiply<T>(rows, end_width, inner, part, columns, 1, matrix(half), end_width,
                        end_gradient + end_gradient_starts[m] + half * rows * end_width, end_width, false);
            multiply<T>(end_depth, columns, rows, ends + end_starts[m] + half * rows * end_depth, 1, end_depth, part,
                        columns, matrices[thread] + plan.offset(tile.on_site(), 0, m) + half * end_depth * columns,
                        columns, true);
          }
          const int64_t edge_depth = plan.edge.channels_of(m), edge_width = padded<T>(edge_depth);
          if (!edge_depth) continue;
          multiply<T>(edge_depth, columns, tile.halves * rows, edges + edge_starts[m], 1, edge_depth, out, columns,
                      matrices[thread] + plan.offset(tile.on_site(), 1, m), columns, true);
          if (!edge_gradient) continue;
          multiply<T>(tile.halves * rows, edge_width, inner, out, columns, 1, matrix(2), edge_width, edge_tile,
                      edge_width, false);
          write_edges(a, tile, m, edge_tile, edge_width, edge_gradient);
        }
        for (int64_t p = plan.before.orders; edge_gradient && p < plan.edge.orders; ++p)
          for (int64_t half = 0; half < tile.halves; ++half)
            for (int64_t b = 0; b < tile.count; ++b)
              std::fill_n(edge_gradient + a.edge_of(tile, half, b) * plan.edge.dim + plan.edge.block_start[p],
                          plan.edge.block_size[p], T(0));
        scatter_atoms(a, tile, end_gradient_starts, end_gradient, zeros, both, nodes[thread]);
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
                                             const int64_t* bonds, const int64_t* rotations, const T* radial,           \
                                             const T* matrices, int64_t atoms, int64_t edges, T* saved, T* out,         \
                                             int64_t summed, int64_t threads) {                                         \
    Plan reader(numbers);                                                                                               \
    const Convolution plan(reader);                                                                                     \
    forward<T>({plan, node, edge, index, bonds, rotations, radial, matrices, atoms, edges}, saved, out, summed, threads); \
  }                                                                                                                     \
  extern "C" void convolution_backward_##NAME(                                                                          \
      const int64_t* numbers, const T* node, const T* edge, const int64_t* index, const int64_t* bonds,                 \
      const int64_t* rotations, const T* radial, const T* matrices, int64_t atoms, int64_t edges, T* saved,             \
      const T* gradient, int64_t summed, T* node_gradient, T* edge_gradient, T* radial_gradient, T* matrices_gradient,  \
      int64_t matrices_size, int64_t threads) {                                                                         \
    Plan reader(numbers);                                                                                               \
    const Convolution plan(reader);                                                                                     \
    backward<T>({plan, node, edge, index, bonds, rotations, radial, matrices, atoms, edges}, saved, gradient, summed,   \
                node_gradient, edge_gradient, radial_gradient, matrices_gradient, matrices_size, threads);              \
  }
DEFINE(float, float32)
DEFINE(double, float64)
