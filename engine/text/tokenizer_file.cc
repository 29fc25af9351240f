#include "engine/text/tokenizer_file.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "kernels/core/status_macros.h"

namespace cairn {
namespace {

using nlohmann::json;

// Builds TokenizerFile from nlohmann's parsing events.
class TokenizerSax : public nlohmann::json_sax<json> {
 public:
  explicit TokenizerSax(TokenizerFile* file) : file_(file) {}

  const std::string& error() const { return error_; }

  bool null() override { return Scalar(nullptr, "null"); }
  bool boolean(bool value) override { return Scalar(value, "a boolean"); }
  bool number_float(double value, const std::string&) override { return Scalar(value, "a fraction"); }
  bool binary(binary_t&) override { return Fail("binary data"); }

  bool number_integer(int64_t value) override {
    if (section_ == Section::kVocab) return VocabEntry(value);
    return Scalar(value, "an integer");
  }
  bool number_unsigned(uint64_t value) override {
    if (section_ == Section::kVocab) return VocabEntry(value > INT64_MAX ? INT64_MAX : static_cast<int64_t>(value));
    return Scalar(value, "an integer");
  }
  bool string(std::string& value) override {
    if (section_ == Section::kMerges) return MergeString(value);
    if (section_ == Section::kPair) {
      pair_.push_back(std::move(value));
      return pair_.size() <= 2 || Fail(absl::StrCat(MergeName(), ": expected two strings"));
    }
    return Scalar(std::move(value), "a string");
  }

  bool start_object(size_t) override {
    if (section_ != Section::kTree) return Unexpected("an object");
    if (EntersModelMember("vocab")) {
      section_ = Section::kVocab;
      file_->vocab.clear();
      return true;
    }
    return Open(json::object());
  }
  bool key(std::string& name) override {
    key_ = std::move(name);
    return true;
  }
  bool end_object() override {
    if (section_ == Section::kVocab) {
      section_ = Section::kTree;
      return true;
    }
    return Close();
  }
  bool start_array(size_t) override {
    if (section_ == Section::kMerges) {
      section_ = Section::kPair;
      pair_.clear();
      return true;
    }
    if (section_ != Section::kTree) return Unexpected("an array");
    if (EntersModelMember("merges")) {
      section_ = Section::kMerges;
      file_->merges.clear();
      return true;
    }
    return Open(json::array());
  }
  bool end_array() override {
    if (section_ == Section::kPair) {
      if (pair_.size() != 2) return Fail(absl::StrCat(MergeName(), ": expected two strings"));
      file_->merges.emplace_back(std::move(pair_[0]), std::move(pair_[1]));
      section_ = Section::kMerges;
      return true;
    }
    if (section_ == Section::kMerges) {
      section_ = Section::kTree;
      return true;
    }
    return Close();
  }
  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception& error) override {
    if (error_.empty()) error_ = error.what();
    return false;
  }

 private:
  enum class Section { kTree, kVocab, kMerges, kPair };

  bool Fail(std::string message) {
    error_ = std::move(message);
    return false;
  }
  std::string MergeName() const { return absl::StrCat("model.merges[", file_->merges.size(), "]"); }
  bool Unexpected(const char* found) {
    if (section_ == Section::kVocab) {
      return Fail(absl::StrCat("model.vocab: \"", key_, "\": expected an id, found ", found,
                               " (a Unigram model's list of scores is not supported; supported: BPE)"));
    }
    return Fail(absl::StrCat(MergeName(), ": expected \"a b\" or [\"a\", \"b\"], found ", found));
  }
  bool VocabEntry(int64_t id) {
    if (id < 0 || id > kMaxTokenId) {
      return Fail(absl::StrCat("model.vocab: \"", key_, "\": expected an id from 0 to ", kMaxTokenId, ", found ", id));
    }
    file_->vocab.emplace_back(std::move(key_), static_cast<int32_t>(id));
    return true;
  }
  bool MergeString(const std::string& text) {
    // A merges.txt line that came along: Hugging Face leaves it out too.
    if (text.rfind("#version", 0) == 0) return true;
    const size_t space = text.find(' ');
    if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) {
      return Fail(absl::StrCat(MergeName(), ": expected two tokens and one space between them, found \"", text, "\""));
    }
    file_->merges.emplace_back(text.substr(0, space), text.substr(space + 1));
    return true;
  }

  bool EntersModelMember(const char* name) const {
    return stack_.size() == 2 && stack_[1] == model_ && stack_[1]->is_object() && key_ == name;
  }
  // Puts a value where the tree stands now and returns its place, which holds until its own container ends.
  json* Place(json value) {
    if (stack_.empty()) return &(file_->rest = std::move(value));
    json* parent = stack_.back();
    if (parent->is_array()) {
      parent->push_back(std::move(value));
      return &parent->back();
    }
    json* place = &(*parent)[key_];
    *place = std::move(value);
    return place;
  }
  bool Scalar(json value, const char* kind) {
    if (section_ != Section::kTree) return Unexpected(kind);
    Place(std::move(value));
    return true;
  }
  bool Open(json container) {
    const bool is_model = stack_.size() == 1 && stack_[0]->is_object() && key_ == "model";
    stack_.push_back(Place(std::move(container)));
    if (is_model) model_ = stack_.back();
    return true;
  }
  bool Close() {
    stack_.pop_back();
    return true;
  }

  TokenizerFile* file_;
  Section section_ = Section::kTree;
  std::vector<json*> stack_;       // the open containers of the tree
  const json* model_ = nullptr;    // the root's "model"
  std::string key_;                // the last key read
  std::vector<std::string> pair_;  // the merge being read
  std::string error_;
};

}  // namespace

absl::StatusOr<std::string> ReadTextFile(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) return absl::NotFoundError(absl::StrCat(path, ": cannot open: ", std::strerror(errno)));
  std::ostringstream text;
  text << stream.rdbuf();
  // An empty file sets the failbit of `text`, a directory the badbit of `stream`.
  if (stream.bad()) return absl::InvalidArgumentError(absl::StrCat(path, ": cannot read"));
  return std::move(text).str();
}

absl::StatusOr<TokenizerFile> ReadTokenizerFile(const std::string& path) {
  CAIRN_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(path));
  TokenizerFile file;
  file.path = path;
  TokenizerSax sax(&file);
  if (!json::sax_parse(text, &sax)) return absl::InvalidArgumentError(absl::StrCat(path, ": ", sax.error()));
  if (!file.rest.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": expected an object, found ", file.rest.type_name()));
  }
  return file;
}

}  // namespace cairn
