#include "engine/answer.h"

#include <algorithm>

namespace cairn {

Answer::Answer(const SamplingParams& sampling, int32_t index, const std::vector<int32_t>& eos_token_ids,
               const Tokenizer* tokenizer, int32_t max_tokens)
    : sampling_(sampling), eos_token_ids_(eos_token_ids), max_tokens_(max_tokens) {
  whole_.index = index;
  if (tokenizer != nullptr) detokenizer_.emplace(*tokenizer, sampling.skip_special_tokens);
}

// EOS and stop tokens end the answer; their text is not part of it unless the request says so. (min_tokens is the
// sampler's business: it masks these tokens until then.)
bool Answer::EndsAtToken(int32_t token) {
  const auto in = [token](const std::vector<int32_t>& ids) {
    return std::find(ids.begin(), ids.end(), token) != ids.end();
  };
  if (in(sampling_.stop_token_ids)) {
    whole_.stop_reason = std::to_string(token);
  } else if (sampling_.ignore_eos || !in(eos_token_ids_)) {
    return false;
  }
  whole_.finish_reason = FinishReason::kStop;
  return true;
}

// Looks for a stop string that ends at or after byte `from`; the earliest in the text wins.
bool Answer::CutAtStopString(size_t from) {
  size_t cut = std::string::npos;
  for (const std::string& stop : sampling_.stop) {
    const size_t start = from + 1 > stop.size() ? from + 1 - stop.size() : 0;
    const size_t at = whole_.text.find(stop, start);
    if (at < cut) {
      cut = at;
      whole_.stop_reason = stop;
    }
  }
  if (cut == std::string::npos) return false;
  whole_.text.resize(cut + (sampling_.include_stop_str_in_output ? whole_.stop_reason.size() : 0));
  whole_.finish_reason = FinishReason::kStop;
  return true;
}

void Answer::Add(const TokenLogprob& token) {
  whole_.token_ids.push_back(token.token);
  if (sampling_.logprobs.has_value()) whole_.logprobs.push_back(token);
  const bool ended = EndsAtToken(token.token);
  const size_t before = whole_.text.size();
  if (detokenizer_.has_value()) {
    if (!ended || sampling_.include_stop_str_in_output) whole_.text += detokenizer_->Add(token.token);
    const int32_t length = static_cast<int32_t>(whole_.token_ids.size());
    if (!ended && length > sampling_.min_tokens && CutAtStopString(before)) return;
  }
  if (!ended && static_cast<int32_t>(whole_.token_ids.size()) >= max_tokens_) {
    whole_.finish_reason = FinishReason::kLength;
  }
  if (finished() && detokenizer_.has_value()) whole_.text += detokenizer_->Finish();
}

// The longest end of the text that begins a stop string.
size_t Answer::HeldBack() const {
  if (finished()) return 0;
  size_t longest = 0;
  for (const std::string& stop : sampling_.stop) {
    for (size_t length = std::min(stop.size() - 1, whole_.text.size()); length > longest; --length) {
      if (whole_.text.compare(whole_.text.size() - length, length, stop, 0, length) == 0) longest = length;
    }
  }
  return longest;
}

Completion Answer::TakeNew() {
  Completion fresh;
  fresh.index = whole_.index;
  fresh.finish_reason = whole_.finish_reason;
  fresh.stop_reason = whole_.stop_reason;
  fresh.token_ids.assign(whole_.token_ids.begin() + taken_tokens_, whole_.token_ids.end());
  if (!whole_.logprobs.empty()) fresh.logprobs.assign(whole_.logprobs.begin() + taken_tokens_, whole_.logprobs.end());
  taken_tokens_ = whole_.token_ids.size();
  const size_t settled = std::max(taken_text_, whole_.text.size() - HeldBack());
  fresh.text = whole_.text.substr(taken_text_, settled - taken_text_);
  taken_text_ = settled;
  return fresh;
}

}  // namespace cairn
