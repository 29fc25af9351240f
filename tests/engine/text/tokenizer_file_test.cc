// Files that are broken, hostile or beyond what is supported: a Status that names the file and the field, never a
// crash.
#include <random>
#include <vector>

#include "engine/text/tokenizer.h"
#include "gmock/gmock.h"
#include "nlohmann/json.hpp"
#include "tests/engine/text/test_data.h"

namespace cairn {
namespace {

using nlohmann::json;
using testing::HasSubstr;

json SmallFile(const std::string& name) {
  return json::parse(ReadFile(TextDataDir() + "/tokenizers/" + name + "/tokenizer.json"));
}

absl::Status LoadText(const std::string& tokenizer_json, const std::string& config = "") {
  const TemporaryDirectory directory;
  directory.Write("tokenizer.json", tokenizer_json);
  if (!config.empty()) directory.Write("tokenizer_config.json", config);
  return Tokenizer::Load(directory.path()).status();
}

TEST(TokenizerFile, AbsentFile) {
  const TemporaryDirectory directory;
  const absl::Status status = Tokenizer::Load(directory.path()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("tokenizer.json"));
}

struct Change {
  const char* small;  // the tokenizer that is changed
  const char* patch;  // a JSON merge patch
  const char* field;  // what the message names
  const char* message;
};

TEST(TokenizerFile, WhatIsNotSupportedIsNamed) {
  const Change changes[] = {
      {"gpt2", R"({"model": {"type": "WordPiece"}})", "model.type", "\"WordPiece\" is not supported (supported: BPE)"},
      {"gpt2", R"({"model": {"vocab": null}})", "model", "\"vocab\" is missing"},
      {"gpt2", R"({"model": {"vocab": {"x": "7"}}})", "model.vocab: \"x\"", "found a string"},
      {"gpt2", R"({"model": {"vocab": {"x": -1}}})", "model.vocab: \"x\"", "found -1"},
      {"gpt2", R"({"model": {"vocab": {"x": 99999999999}}})", "model.vocab: \"x\"", "found 99999999999"},
      {"gpt2", R"({"model": {"vocab": {"x": 5}}})", "model: vocab", "same id 5"},
      {"gpt2", R"({"model": {"vocab": [["a", -1.5]]}})", "model", "vocab"},
      {"gpt2", R"({"model": {"merges": ["a"]}})", "model.merges[0]", "expected two tokens"},
      {"gpt2", R"({"model": {"merges": [["a", "b", "c"]]}})", "model.merges[0]", "expected two strings"},
      {"gpt2", R"({"model": {"merges": [["a", 1]]}})", "model.merges[0]", "found an integer"},
      {"gpt2", R"({"model": {"merges": [["a", "zzz"]]}})", "merges[0]", "\"zzz\" is not in the vocabulary"},
      {"gpt2", R"({"model": {"merges": [["", "a"]]}})", "merges[0]", ""},
      {"gpt2", R"({"model": {"unk_token": "[none]"}})", "model.unk_token", "not in the vocabulary"},
      {"gpt2", R"({"model": {"dropout": 0.1}})", "model.dropout", "not supported"},
      {"gpt2", R"({"model": {"end_of_word_suffix": "</w>"}})", "model.end_of_word_suffix", "not supported"},
      {"gpt2", R"({"model": null})", "tokenizer.json", "\"model\" is missing"},
      {"gpt2", R"({"normalizer": {"type": "BertNormalizer"}})", "normalizer", "supported: NFC"},
      {"gpt2", R"({"normalizer": {"type": "Sequence", "normalizers": [{"type": "Nmt"}]}})", "normalizer.normalizers[0]",
       "\"Nmt\" is not supported"},
      {"gpt2", R"({"normalizer": {"type": "Replace", "pattern": {"Regex": "(a"}, "content": ""}})",
       "normalizer.pattern.Regex", "does not compile"},
      {"gpt2", R"({"normalizer": {"type": "Replace", "pattern": "a", "content": ""}})", "normalizer.pattern",
       "expected an object"},
      {"gpt2", R"({"pre_tokenizer": {"type": "UnicodeScripts"}})", "pre_tokenizer", "supported: Sequence, Split"},
      {"gpt2",
       R"({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "ByteLevel"}, {"type": "Digits"}]}})",
       "pre_tokenizer.pretokenizers[1]", "after ByteLevel"},
      {"gpt2", R"({"pre_tokenizer": {"type": "Split", "pattern": {"String": "a"}, "behavior": "Sideways"}})",
       "pre_tokenizer.behavior", "Sideways"},
      {"gpt2", R"({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "a*"}, "behavior": "Isolated"}})",
       "pre_tokenizer.pattern.Regex", "empty string"},
      {"gpt2", R"({"pre_tokenizer": {"type": "Metaspace", "replacement": "ab"}})", "pre_tokenizer", "one character"},
      {"gpt2", R"({"pre_tokenizer": 3})", "pre_tokenizer", "expected an object, found number"},
      {"gpt2", R"({"decoder": {"type": "WordPiece"}})", "decoder", "supported: Sequence, ByteLevel"},
      {"gpt2", R"({"decoder": {"type": "Strip", "content": "ab", "start": 1, "stop": 0}})", "decoder", "one character"},
      {"gpt2", R"({"decoder": {"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "ByteFallback"}]}})",
       "decoder.decoders[1]", "after Fuse"},
      {"gpt2", R"({"post_processor": {"type": "BertProcessing"}})", "post_processor", "supported: TemplateProcessing"},
      {"gpt2", R"({"post_processor": {"type": "TemplateProcessing", "single": []}})", "post_processor.single",
       "sequence A once"},
      {"llama2", R"({"post_processor": {"special_tokens": {"<s>": {"ids": ["1"]}}}})",
       "post_processor.special_tokens.<s>.ids[0]", "expected an integer"},
      {"gpt2", R"({"added_tokens": 7})", "added_tokens", "expected an array"},
      {"gpt2", R"({"added_tokens": [{"id": 0}]})", "added_tokens[0]", "\"content\" is missing"},
      {"gpt2", R"({"added_tokens": [{"id": 0, "content": "x"}]})", "added_tokens", "\"x\" has id 0"},
      {"gpt2", R"({"added_tokens": [{"id": 9000, "content": "x"}, {"id": 9000, "content": "y"}]})", "added_tokens[1]",
       "already \"x\""},
      {"gpt2", R"({"added_tokens": [{"id": 9000, "content": ""}]})", "added_tokens[0]", "empty"},
      {"gpt2", R"({"added_tokens": [{"id": 1e30, "content": "x"}]})", "added_tokens[0].id", "expected an integer"},
      {"gpt2", R"({"added_tokens": [{"id": 18446744073709551615, "content": "x"}]})", "added_tokens[0].id",
       "from 0 to"},
  };
  for (const Change& change : changes) {
    json file = SmallFile(change.small);
    // A merge patch cannot replace an object by a smaller one: a new "type" or vocabulary starts afresh.
    const json patch = json::parse(change.patch);
    for (const auto& [name, value] : patch.items()) {
      if (name != "model" && value.contains("type")) file.erase(name);
    }
    file.merge_patch(patch);
    const absl::Status status = LoadText(file.dump());
    const std::string message(status.message());
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << change.patch;
    EXPECT_THAT(message, HasSubstr("/tokenizer.json: ")) << change.patch;
    EXPECT_THAT(message, HasSubstr(change.field)) << change.patch;
    EXPECT_THAT(message, HasSubstr(change.message)) << change.patch;
  }
}

TEST(TokenizerFile, BrokenConfig) {
  const std::string file = SmallFile("gpt2").dump();
  const std::pair<const char*, const char*> configs[] = {{"{", "parse error"},
                                                         {"[]", "expected an object"},
                                                         {R"({"bos_token": 3})", "bos_token"},
                                                         {R"({"bos_token": {}})", "bos_token"},
                                                         {R"({"add_bos_token": "yes"})", "add_bos_token"},
                                                         {R"({"chat_template": 7})", "chat_template"},
                                                         {R"({"chat_template": [7]})", "chat_template[0]"}};
  for (const auto& [config, message] : configs) {
    const absl::Status status = LoadText(file, config);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << config;
    EXPECT_THAT(std::string(status.message()), HasSubstr("tokenizer_config.json: ")) << config;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message)) << config;
  }
}

TEST(TokenizerFile, TruncatedFiles) {
  const std::string text = SmallFile("llama3").dump();
  for (size_t length = 0; length < text.size(); length += 307) {
    EXPECT_EQ(LoadText(text.substr(0, length)).code(), absl::StatusCode::kInvalidArgument) << length;
  }
}

TEST(TokenizerFile, DeepNesting) {
  EXPECT_FALSE(LoadText(std::string(100'000, '[')).ok());
  EXPECT_FALSE(LoadText(std::string(100'000, '[') + std::string(100'000, ']')).ok());
  std::string normalizer = R"({"type": "NFC"})";
  for (int i = 0; i < 1000; ++i) normalizer = R"({"type": "Sequence", "normalizers": [)" + normalizer + "]}";
  json file = SmallFile("gpt2");
  file["normalizer"] = json::parse(normalizer);
  EXPECT_THAT(std::string(LoadText(file.dump()).message()), HasSubstr("too many sequences"));
}

// Values of other types in every place, one at a time, and random bytes changed: an error or a tokenizer that works.
TEST(TokenizerFile, RandomDamage) {
  std::mt19937 random(6);
  for (const char* name : {"qwen2", "llama2", "metaspace", "gpt2"}) {
    json small = SmallFile(name);
    // A few hundred entries are enough to hit, and to be quick.
    const json flat = small.flatten();
    std::vector<std::string> places;
    for (const auto& [place, value] : flat.items()) {
      if (place.rfind("/model/vocab", 0) != 0 && place.rfind("/model/merges", 0) != 0) places.push_back(place);
    }
    const json others[] = {
        nullptr, true, -1, 1e300, "", "\u0001", json::array(), json::object(), {{"type", "Sequence"}}, 1 << 30};
    for (const std::string& place : places) {
      json damaged = small;
      damaged[json::json_pointer(place)] = others[random() % std::size(others)];
      const absl::Status status = LoadText(damaged.dump());
      EXPECT_TRUE(status.ok() || status.code() == absl::StatusCode::kInvalidArgument) << place << ": " << status;
    }
    const std::string text = small.dump();
    for (int round = 0; round < 60; ++round) {
      std::string damaged = text;
      for (int i = 0; i < 3; ++i) damaged[random() % damaged.size()] = static_cast<char>(random());
      const TemporaryDirectory directory;
      directory.Write("tokenizer.json", damaged);
      const auto tokenizer = Tokenizer::Load(directory.path());
      if (tokenizer.ok()) (*tokenizer)->Decode((*tokenizer)->Encode("It's 12 <s>\n x", true), false);
    }
  }
}

}  // namespace
}  // namespace cairn
