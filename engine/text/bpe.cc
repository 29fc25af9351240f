#include "engine/text/bpe.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/text/byte_alphabet.h"
#include "engine/text/utf8.h"
#include "kernels/core/status_macros.h"

namespace cairn {
namespace {

// Words of more symbols are cut at the places that no merge crosses.
constexpr size_t kLongWord = 24;
// Words of more symbols are not remembered; the cache is emptied when it has this many.
constexpr size_t kMaxCachedSymbols = 64;
constexpr size_t kMaxCachedWords = 1 << 16;

std::string ByteToken(int byte) { return absl::StrFormat("<0x%02X>", byte); }

}  // namespace

absl::StatusOr<Bpe> Bpe::Create(TokenizerFile* file, const JsonField& model, bool byte_level) {
  Bpe bpe;
  bpe.byte_level_ = byte_level;
  CAIRN_ASSIGN_OR_RETURN(const std::optional<JsonField> type, model.Find("type"));
  if (type) {  // absent in very old files, which are BPE where they have merges
    CAIRN_ASSIGN_OR_RETURN(const std::string name, type->String());
    if (name != "BPE") return type->Unsupported(name, "BPE");
  }
  if (file->vocab.empty()) return model.Error("field \"vocab\" is missing or empty");
  absl::StatusOr<Vocabulary> vocabulary = Vocabulary::Create(std::move(file->vocab));
  if (!vocabulary.ok()) return model.Error(absl::StrCat("vocab: ", vocabulary.status().message()));
  bpe.vocabulary_ = *std::move(vocabulary);
  CAIRN_RETURN_IF_ERROR(bpe.ReadOptions(model));
  bpe.FillTables();
  const absl::Status merges = bpe.ReadMerges(*file);
  if (!merges.ok()) return model.Error(std::string(merges.message()));
  bpe.FillJoints();
  return bpe;
}

absl::Status Bpe::ReadOptions(const JsonField& model) {
  for (const char* name : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    CAIRN_ASSIGN_OR_RETURN(const std::optional<JsonField> affix, model.Find(name));
    if (!affix) continue;
    CAIRN_ASSIGN_OR_RETURN(const std::string text, affix->String());
    if (!text.empty()) return affix->Unsupported(text, "none");
  }
  CAIRN_ASSIGN_OR_RETURN(const std::optional<JsonField> dropout, model.Find("dropout"));
  if (dropout && (!dropout->value().is_number() || dropout->value().get<double>() != 0)) {
    return dropout->Unsupported(dropout->value().dump(-1, ' ', true), "none");
  }
  CAIRN_ASSIGN_OR_RETURN(byte_fallback_, model.Bool("byte_fallback", false));
  CAIRN_ASSIGN_OR_RETURN(fuse_unknown_, model.Bool("fuse_unk", false));
  CAIRN_ASSIGN_OR_RETURN(ignore_merges_, model.Bool("ignore_merges", false));
  CAIRN_ASSIGN_OR_RETURN(const std::optional<JsonField> unknown, model.Find("unk_token"));
  if (unknown) {
    CAIRN_ASSIGN_OR_RETURN(const std::string token, unknown->String());
    unknown_ = vocabulary_.Id(token);
    if (unknown_ < 0) return unknown->Error(absl::StrCat("\"", token, "\" is not in the vocabulary"));
  }
  return absl::OkStatus();
}

absl::Status Bpe::ReadMerges(const TokenizerFile& file) {
  merges_.reserve(file.merges.size());
  std::string merged;
  for (size_t rank = 0; rank < file.merges.size(); ++rank) {
    const auto& [left, right] = file.merges[rank];
    if (left.empty() || right.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("merges[", rank, "] (\"", left, "\" \"", right, "\"): an empty token"));
    }
    merged.assign(left).append(right);
    int32_t ids[3];
    int i = 0;
    for (const std::string* token : {&left, &right, static_cast<const std::string*>(&merged)}) {
      ids[i] = vocabulary_.Id(*token);
      if (ids[i++] < 0) {
        return absl::InvalidArgumentError(absl::StrCat("merges[", rank, "] (\"", left, "\" \"", right, "\"): \"",
                                                       *token, "\" is not in the vocabulary"));
      }
    }
    merges_[Pair(ids[0], ids[1])] = {static_cast<uint32_t>(rank), ids[2]};  // a repeated merge has its last rank
  }
  return absl::OkStatus();
}

void Bpe::FillTables() {
  std::string character;
  for (char32_t c = 0; c < kDirectCharacters; ++c) {
    character.clear();
    AppendUtf8(c, &character);
    character_ids_[c] = vocabulary_.Id(character);
  }
  for (int byte = 0; byte < 256; ++byte) {
    byte_ids_[byte] = vocabulary_.Id(byte_level_ ? ByteCharacter(static_cast<uint8_t>(byte)) : ByteToken(byte));
  }
}

int32_t Bpe::FirstSymbol(int32_t token) const {
  const std::string& text = *vocabulary_.Token(token);
  size_t end = 0;
  const char32_t c = NextCodePoint(text, &end);
  return CharacterId(std::string_view(text).substr(0, end), c);
}

int32_t Bpe::LastSymbol(int32_t token) const {
  const std::string& text = *vocabulary_.Token(token);
  const char32_t c = LastCodePoint(text, text.size());
  std::string character;
  AppendUtf8(c, &character);
  return CharacterId(character, c);
}

bool Bpe::IsFallbackSymbol(int32_t token) const {
  const std::string& text = *vocabulary_.Token(token);
  return token == unknown_ || (byte_fallback_ && text.size() == 6 && text.compare(0, 3, "<0x") == 0);
}

// A token that a merge joins has become what its text says, symbol by symbol, or was a symbol from the start whose text
// says something else ("<0x0A>" of byte fallback, the unknown token): such a token's ends are counted in both ways.
void Bpe::FillJoints() {
  for (const auto& [pair, merge] : merges_) {
    const auto left = static_cast<int32_t>(pair >> 32), right = static_cast<int32_t>(pair & 0xFFFFFFFF);
    const int32_t lefts[] = {LastSymbol(left), left}, rights[] = {FirstSymbol(right), right};
    for (int i = 0; i < (IsFallbackSymbol(left) ? 2 : 1); ++i) {
      for (int j = 0; j < (IsFallbackSymbol(right) ? 2 : 1); ++j) joints_.insert(Pair(lefts[i], rights[j]));
    }
  }
}

bool Bpe::AppendFallback(std::string_view character, std::vector<int32_t>* symbols) const {
  const size_t before = symbols->size();
  for (char c : character) {
    const auto byte = static_cast<uint8_t>(c);
    const int32_t id = byte_level_ ? vocabulary_.Id(ByteToken(byte)) : byte_ids_[byte];
    if (id < 0) {
      symbols->resize(before);
      return false;
    }
    symbols->push_back(id);
  }
  return true;
}

void Bpe::AppendSymbols(std::string_view word, std::vector<int32_t>* symbols) const {
  bool unknown_waits = false;  // an unknown token that is written once a known character follows
  for (size_t pos = 0; pos < word.size();) {
    const size_t begin = pos;
    int32_t id;
    if (byte_level_) {
      id = byte_ids_[static_cast<uint8_t>(word[pos++])];
    } else {
      const char32_t c = NextCodePoint(word, &pos);
      id = CharacterId(word.substr(begin, pos - begin), c);
    }
    if (id >= 0) {
      if (unknown_waits) symbols->push_back(unknown_);
      unknown_waits = false;
      symbols->push_back(id);
      continue;
    }
    const std::string_view character = byte_level_ ? std::string_view(ByteCharacter(static_cast<uint8_t>(word[begin])))
                                                   : word.substr(begin, pos - begin);
    // Bytes do not end the wait of an unknown token, which so comes after them: Hugging Face's order, kept.
    if (byte_fallback_ && AppendFallback(character, symbols)) continue;
    if (unknown_ < 0) continue;
    if (unknown_waits && !fuse_unknown_) symbols->push_back(unknown_);
    unknown_waits = true;
  }
  if (unknown_waits) symbols->push_back(unknown_);
}

void Bpe::Encode(std::string_view word, Scratch* scratch, std::vector<int32_t>* ids) const {
  if (ignore_merges_) {
    std::string_view token = word;
    if (byte_level_) {
      scratch->text.clear();
      for (char c : word) scratch->text += ByteCharacter(static_cast<uint8_t>(c));
      token = scratch->text;
    }
    const int32_t id = vocabulary_.Id(token);
    if (id >= 0) {
      ids->push_back(id);
      return;
    }
  }
  std::vector<int32_t>& symbols = scratch->symbols;
  symbols.clear();
  AppendSymbols(word, &symbols);
  const absl::Span<const int32_t> all(symbols);
  size_t begin = 0;
  if (symbols.size() > kLongWord) {
    for (size_t i = 1; i < symbols.size(); ++i) {
      if (joints_.contains(Pair(symbols[i - 1], symbols[i]))) continue;
      EncodeSymbols(all.subspan(begin, i - begin), scratch, ids);
      begin = i;
    }
  }
  EncodeSymbols(all.subspan(begin), scratch, ids);
}

void Bpe::EncodeSymbols(absl::Span<const int32_t> symbols, Scratch* scratch, std::vector<int32_t>* ids) const {
  if (symbols.size() < 2) {
    ids->insert(ids->end(), symbols.begin(), symbols.end());
    return;
  }
  if (symbols.size() > kMaxCachedSymbols) {
    MergeSymbols(symbols, scratch, ids);
    return;
  }
  const absl::string_view key(reinterpret_cast<const char*>(symbols.data()), symbols.size() * sizeof(int32_t));
  const auto found = scratch->words.find(key);
  if (found != scratch->words.end()) {
    const auto begin = scratch->merged.begin() + found->second.first;
    ids->insert(ids->end(), begin, begin + found->second.second);
    return;
  }
  if (scratch->words.size() == kMaxCachedWords) {
    scratch->words.clear();
    scratch->merged.clear();
  }
  const size_t before = ids->size();
  MergeSymbols(symbols, scratch, ids);
  scratch->words.emplace(std::string(key), std::pair(static_cast<uint32_t>(scratch->merged.size()),
                                                     static_cast<uint32_t>(ids->size() - before)));
  scratch->merged.insert(scratch->merged.end(), ids->begin() + before, ids->end());
}

void Bpe::MergeSymbols(absl::Span<const int32_t> symbols, Scratch* scratch, std::vector<int32_t>* ids) const {
  auto& chain = scratch->chain;
  auto& heap = scratch->heap;
  const auto count = static_cast<int32_t>(symbols.size());
  chain.clear();
  heap.clear();
  for (int32_t i = 0; i < count; ++i) chain.push_back({symbols[i], i - 1, i + 1 < count ? i + 1 : -1});
  for (int32_t i = 0; i + 1 < count; ++i) {
    if (const Merge* merge = FindMerge(symbols[i], symbols[i + 1])) heap.push_back({merge->rank, i, merge->merged});
  }
  std::make_heap(heap.begin(), heap.end());
  auto offer = [&](int32_t left) {
    if (left < 0 || chain[left].next < 0) return;
    if (const Merge* merge = FindMerge(chain[left].id, chain[chain[left].next].id)) {
      heap.push_back({merge->rank, left, merge->merged});
      std::push_heap(heap.begin(), heap.end());
    }
  };
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end());
    const Scratch::Candidate top = heap.back();
    heap.pop_back();
    Scratch::Symbol& left = chain[top.position];
    if (left.id < 0 || left.next < 0) continue;
    Scratch::Symbol& right = chain[left.next];
    const Merge* merge = FindMerge(left.id, right.id);
    if (merge == nullptr || merge->merged != top.merged) continue;  // the pair has changed since
    left.id = top.merged;
    right.id = -1;
    left.next = right.next;
    if (left.next >= 0) chain[left.next].previous = top.position;
    offer(left.previous);
    offer(top.position);
  }
  for (int32_t i = 0; i >= 0; i = chain[i].next) ids->push_back(chain[i].id);
}

}  // namespace cairn
