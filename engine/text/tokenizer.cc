#include "engine/text/tokenizer.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "engine/text/json_field.h"
#include "engine/text/tokenizer_file.h"
#include "engine/text/tokenizer_impl.h"
#include "engine/text/utf8.h"
#include "kernels/core/check.h"
#include "kernels/core/status_macros.h"

namespace cairn {

std::unique_ptr<Tokenizer::Impl::Scratch> Tokenizer::Impl::ScratchPool::Take() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!idle_.empty()) {
      std::unique_ptr<Scratch> scratch = std::move(idle_.back());
      idle_.pop_back();
      return scratch;
    }
  }
  return std::make_unique<Scratch>();
}

void Tokenizer::Impl::ScratchPool::Return(std::unique_ptr<Scratch> scratch) {
  const std::lock_guard<std::mutex> lock(mutex_);
  idle_.push_back(std::move(scratch));
}

absl::Status Tokenizer::Impl::Load(const std::string& directory) {
  CAIRN_ASSIGN_OR_RETURN(config, ReadTokenizerConfig(directory));
  CAIRN_ASSIGN_OR_RETURN(TokenizerFile file, ReadTokenizerFile(absl::StrCat(directory, "/tokenizer.json")));
  const JsonField root(file.path, file.rest);
  CAIRN_ASSIGN_OR_RETURN(const std::optional<JsonField> normalizer_field, root.Find("normalizer"));
  if (normalizer_field) {
    CAIRN_ASSIGN_OR_RETURN(normalizer, Normalizer::FromJson(*normalizer_field));
  }
  CAIRN_ASSIGN_OR_RETURN(const std::optional<JsonField> pre_tokenizer_field, root.Find("pre_tokenizer"));
  if (pre_tokenizer_field) {
    CAIRN_ASSIGN_OR_RETURN(pre_tokenizer, PreTokenizer::FromJson(*pre_tokenizer_field));
  }
  CAIRN_ASSIGN_OR_RETURN(const std::optional<JsonField> decoder_field, root.Find("decoder"));
  if (decoder_field) {
    CAIRN_ASSIGN_OR_RETURN(decoder, Decoder::FromJson(*decoder_field));
  }
  CAIRN_ASSIGN_OR_RETURN(const JsonField model, root.Member("model"));
  CAIRN_ASSIGN_OR_RETURN(bpe, Bpe::Create(&file, model, pre_tokenizer.byte_level()));
  CAIRN_RETURN_IF_ERROR(AddTokens(root));

  auto id_of = [&](const std::string& token) {
    const auto found = added_by_text.find(token);
    return found == added_by_text.end() ? bpe.vocabulary().Id(token) : added[found->second].id;
  };
  bos_id = config.bos_token.empty() ? -1 : id_of(config.bos_token);
  eos_id = config.eos_token.empty() ? -1 : id_of(config.eos_token);
  CAIRN_ASSIGN_OR_RETURN(const std::optional<JsonField> post_processor_field, root.Find("post_processor"));
  if (post_processor_field) {
    CAIRN_ASSIGN_OR_RETURN(post_processor, PostProcessor::FromJson(*post_processor_field));
  } else {
    if (config.add_bos_token && bos_id >= 0) post_processor.before.push_back(bos_id);
    if (config.add_eos_token && eos_id >= 0) post_processor.after.push_back(eos_id);
  }
  return absl::OkStatus();
}

absl::Status Tokenizer::Impl::AddTokens(const JsonField& root) {
  CAIRN_ASSIGN_OR_RETURN(added, ReadAddedTokens(root, normalizer));
  const Vocabulary& vocabulary = bpe.vocabulary();
  vocab_size = vocabulary.size();
  std::vector<AddedToken> raw, normalized;
  absl::flat_hash_set<std::string> special_texts;
  for (size_t i = 0; i < added.size(); ++i) {
    const AddedToken& token = added[i];
    const int32_t model_id = vocabulary.Id(token.content);
    const std::string* model_token = vocabulary.Token(token.id);
    if ((model_id >= 0 && model_id != token.id) || (model_token != nullptr && *model_token != token.content)) {
      return root.Error(absl::StrCat("added_tokens: \"", token.content, "\" has id ", token.id, ", but in model.vocab ",
                                     model_id >= 0 ? "it" : "that id", " is ",
                                     model_id >= 0 ? absl::StrCat(model_id) : absl::StrCat("\"", *model_token, "\"")));
    }
    if (!added_by_text.emplace(token.content, i).second) {
      return root.Error(absl::StrCat("added_tokens: \"", token.content, "\" is there twice"));
    }
    added_by_id[token.id] = i;
    (token.normalize ? normalized : raw).push_back(token);
    if (token.special) special_texts.insert(token.content);
    vocab_size = std::max(vocab_size, token.id + 1);
  }
  raw_tokens = AddedTokenFinder(std::move(raw));
  normalized_tokens = AddedTokenFinder(std::move(normalized));
  special.assign(vocab_size, false);
  for (const AddedToken& token : added) special[token.id] = special_texts.contains(token.normalized);
  return absl::OkStatus();
}

void Tokenizer::Impl::EncodeWords(std::string_view text, bool at_start, Scratch* scratch,
                                  std::vector<int32_t>* ids) const {
  for (std::string_view word : pre_tokenizer.Split(text, at_start, &scratch->pre_tokenizer)) {
    bpe.Encode(word, &scratch->bpe, ids);
  }
}

void Tokenizer::Impl::EncodePlain(std::string_view text, bool at_start, Scratch* scratch,
                                  std::vector<int32_t>* ids) const {
  std::string normalized;
  if (!normalizer.empty()) {
    normalized = normalizer.Normalize(text, &scratch->pre_tokenizer.regex);
    text = normalized;
  }
  normalized_tokens.Split(text, [&](std::string_view stretch, int32_t id) {
    if (id >= 0) {
      ids->push_back(id);
    } else {
      EncodeWords(stretch, at_start && stretch.data() == text.data(), scratch, ids);
    }
  });
}

const std::string* Tokenizer::Impl::TokenText(int32_t id, bool skip_special_tokens) const {
  if (id < 0 || id >= vocab_size || (skip_special_tokens && special[id])) return nullptr;
  const auto found = added_by_id.find(id);
  return found == added_by_id.end() ? bpe.vocabulary().Token(id) : &added[found->second].normalized;
}

Tokenizer::Tokenizer() : impl_(std::make_unique<Impl>()) {}
Tokenizer::~Tokenizer() = default;

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Load(const std::string& directory) {
  std::unique_ptr<Tokenizer> tokenizer(new Tokenizer());
  CAIRN_RETURN_IF_ERROR(tokenizer->impl_->Load(directory));
  return tokenizer;
}

std::vector<int32_t> Tokenizer::Encode(std::string_view text, bool add_special_tokens) const {
  CAIRN_CHECK(text.size() < (size_t{1} << 31), "a text of ", text.size(), " bytes");
  std::string mended;
  if (!IsValidUtf8(text)) {
    AppendLossyUtf8(text, /*at_end=*/true, &mended);
    text = mended;
  }
  std::vector<int32_t> ids;
  const PostProcessor& around = impl_->post_processor;
  if (add_special_tokens) ids = around.before;
  std::unique_ptr<Impl::Scratch> scratch = impl_->pool.Take();
  impl_->raw_tokens.Split(text, [&](std::string_view stretch, int32_t id) {
    if (id >= 0) {
      ids.push_back(id);
    } else {
      impl_->EncodePlain(stretch, stretch.data() == text.data(), scratch.get(), &ids);
    }
  });
  impl_->pool.Return(std::move(scratch));
  if (add_special_tokens) ids.insert(ids.end(), around.after.begin(), around.after.end());
  return ids;
}

std::string Tokenizer::Decode(absl::Span<const int32_t> ids, bool skip_special_tokens) const {
  std::string text;
  DecoderState state;
  Regex::Scratch scratch;
  for (int32_t id : ids) {
    const std::string* token = impl_->TokenText(id, skip_special_tokens);
    if (token != nullptr) impl_->decoder.Add(*token, &state, &scratch, &text);
  }
  impl_->decoder.Finish(&state, &scratch, &text);
  return text;
}

int32_t Tokenizer::vocab_size() const { return impl_->vocab_size; }

int32_t Tokenizer::TokenToId(std::string_view token) const {
  const auto found = impl_->added_by_text.find(absl::string_view(token.data(), token.size()));
  return found == impl_->added_by_text.end() ? impl_->bpe.vocabulary().Id(token) : impl_->added[found->second].id;
}

std::string Tokenizer::IdToToken(int32_t id) const {
  const auto found = impl_->added_by_id.find(id);
  if (found != impl_->added_by_id.end()) return impl_->added[found->second].content;
  const std::string* token = impl_->bpe.vocabulary().Token(id);
  return token == nullptr ? "" : *token;
}

std::string Tokenizer::TokenBytes(int32_t id) const {
  const std::string* token = impl_->TokenText(id, /*skip_special_tokens=*/true);
  if (token == nullptr) return "";
  Regex::Scratch scratch;
  return impl_->decoder.TokenBytes(*token, &scratch);
}

bool Tokenizer::IsSpecial(int32_t id) const { return id >= 0 && id < impl_->vocab_size && impl_->special[id]; }

const std::string& Tokenizer::chat_template() const { return impl_->config.chat_template; }
const std::string& Tokenizer::bos_token() const { return impl_->config.bos_token; }
const std::string& Tokenizer::eos_token() const { return impl_->config.eos_token; }
int32_t Tokenizer::bos_id() const { return impl_->bos_id; }
int32_t Tokenizer::eos_id() const { return impl_->eos_id; }

IncrementalDetokenizer::IncrementalDetokenizer(const Tokenizer& tokenizer, bool skip_special_tokens)
    : tokenizer_(&tokenizer), skip_special_tokens_(skip_special_tokens) {}

std::string IncrementalDetokenizer::Add(int32_t id) {
  std::string piece;
  const std::string* token = tokenizer_->impl_->TokenText(id, skip_special_tokens_);
  if (token == nullptr) return piece;
  Regex::Scratch scratch;
  tokenizer_->impl_->decoder.Add(*token, &state_, &scratch, &piece);
  return piece;
}

std::string IncrementalDetokenizer::Finish() {
  std::string piece;
  Regex::Scratch scratch;
  tokenizer_->impl_->decoder.Finish(&state_, &scratch, &piece);
  return piece;
}

}  // namespace cairn
