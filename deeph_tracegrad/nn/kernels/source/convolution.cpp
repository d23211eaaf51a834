// A DeepH-E3 convolution in one pass over tiles of bonds: features of both atoms gathered and turned into the edges'
// frames, times Y(bond) by one matrix product for each |m| (nn/tensor_product.py), gated and scaled (nn/gate.py), and,
// for atoms, turned back and summed. What a tile needs stays in a core's cache.
#include "gate.hpp"

namespace {

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
    T *one = own + starts[order_of(p)] + tile.row(0, p, 0) * columns, *other = one + tile.rows(order_of(p)) * columns;
    split<T>(tile.count * columns, one, other, row_sign(p), T(0.5), one, other);
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
