// The angles of rotary positions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include <polyhead/rope.h>

namespace polyhead {

// With its defaults filled in. Throws InvalidArgument, `function` leading the message.
Rope checked_rope(Rope rope, int64_t head_dim, const char* function);

// How far each pair turns from one position to the next, in units of 2^-64 turns; of a checked
// rope. An angle is the product with the position, which wraps as angles do. The same on every
// machine.
std::vector<uint64_t> rotary_steps(const Rope& rope);

// Cosines and sines at one position as kernels/head_rows.h reads them, each [rotary_dim / 2], or,
// interleaved, [rotary_dim]. The other way round, for gradients: sines negated.
enum class Turn { kForward, kBack };
template <class T>
void rotary_row(const std::vector<uint64_t>& steps, int64_t position, bool interleaved, Turn turn,
                T* cosine, T* sine);

}  // namespace polyhead
