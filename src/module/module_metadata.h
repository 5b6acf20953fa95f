// What a file's __metadata__ says of a MultiheadAttention that the shapes of its tensors do not.
#pragma once

#include <map>
#include <optional>
#include <string>

#include <polyhead/multihead_attention.h>

namespace polyhead {

using Metadata = std::map<std::string, std::string>;

// num_heads, batch_first, add_zero_attn, dropout; and what torch's class has not, where it is used:
// num_kv_heads; qk_norm_eps; rope_pairs, rope_base and so on.
Metadata metadata_of(const MultiheadAttention::Config& config);

// The rotary positions that are stated; `pairs` is kNone if there are none. Throws InvalidArgument,
// with what it says about a text that cannot be one, `context` leading.
Rope stated_rope(const Metadata& metadata, const std::string& context);
// Nothing if `key` is not there.
std::optional<double> stated_number(const Metadata& metadata, const char* key,
                                    const std::string& context);
std::optional<bool> stated_flag(const Metadata& metadata, const char* key,
                                const std::string& context);

}  // namespace polyhead
