// Chat templates: each family's rendering against Jinja's of the published template (tools/chat_reference.py).
#include "engine/text/chat_template.h"

#include <map>
#include <vector>

#include "gmock/gmock.h"
#include "nlohmann/json.hpp"
#include "tests/engine/text/test_data.h"

namespace cairn {
namespace {

using nlohmann::json;
using Family = ChatTemplate::Family;

std::string TemplateSource(const std::string& name) {
  return ReadFile(TextDataDir() + "/chat_templates/" + name + ".jinja");
}

std::vector<ChatMessage> Messages(const json& list) {
  std::vector<ChatMessage> messages;
  for (const json& message : list) messages.push_back({message["role"], message["content"]});
  return messages;
}

std::vector<ChatMessage> Hello() { return {{"user", "Hello"}}; }

TEST(ChatTemplate, RecognisesTheFamily) {
  const std::map<std::string, Family> expected = {
      {"chatml", Family::kChatMl},
      {"deepseek-r1", Family::kDeepSeekR1},
      {"deepseek-r1-distill", Family::kDeepSeekR1},
      {"deepseek-r1-distill-first", Family::kDeepSeekR1},
      {"gemma", Family::kNone},
      {"llama-2", Family::kLlama2},
      {"llama-3", Family::kLlama3},
      {"llama-3.1", Family::kLlama3},
      {"llama-3.2", Family::kLlama3},
      {"minimind", Family::kChatMl},
      {"mistral-large-2411", Family::kMistral},
      {"mistral-nemo", Family::kMistral},
      {"mistral-v0.1", Family::kMistral},
      {"mistral-v0.2", Family::kMistral},
      {"mistral-v0.3", Family::kMistral},
      {"mistral-v1", Family::kMistral},
      {"phi-4", Family::kNone},
      {"qwen2", Family::kChatMl},
      {"qwen2.5", Family::kChatMl},
      {"qwen2.5-math", Family::kChatMl},
      {"qwen3", Family::kChatMl},
      {"qwen3-thinking-2507", Family::kChatMl},
      {"qwq", Family::kChatMl},
      {"smollm2", Family::kChatMl},
  };
  size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(TextDataDir() + "/chat_templates")) {
    const std::string name = entry.path().stem();
    ASSERT_TRUE(expected.contains(name)) << name;
    EXPECT_EQ(ChatTemplate::FromSource(TemplateSource(name), "<s>", "</s>").family(), expected.at(name)) << name;
    ++files;
  }
  EXPECT_EQ(files, expected.size());
}

TEST(ChatTemplate, RendersAsJinjaDoes) {
  const json all = json::parse(ReadFile(TextDataDir() + "/chat_cases.json"));
  for (const json& entry : all) {
    const std::string name = entry["template"];
    const ChatTemplate chat = ChatTemplate::FromSource(TemplateSource(name), entry["bos"], entry["eos"]);
    if (chat.family() == Family::kNone) continue;
    for (const json& expected : entry["cases"]) {
      SCOPED_TRACE(name + ": " + expected.dump());
      const auto rendered = chat.Render(Messages(expected["messages"]), expected.value("enable_thinking", true));
      if (expected.contains("error")) {
        EXPECT_EQ(rendered.status().code(), absl::StatusCode::kInvalidArgument);
      } else {
        ASSERT_TRUE(rendered.ok()) << rendered.status();
        EXPECT_EQ(*rendered, expected["expected"].get<std::string>());
      }
    }
  }
}

TEST(ChatTemplate, UnrecognisedTemplateSaysWhatToDo) {
  const ChatTemplate chat = ChatTemplate::FromSource(TemplateSource("gemma"), "<bos>", "<eos>");
  const auto rendered = chat.Render(Hello());
  EXPECT_EQ(rendered.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(rendered.status().message()), testing::HasSubstr("\"prompt\""));
  EXPECT_THAT(std::string(rendered.status().message()), testing::HasSubstr("unrecognised"));
  const auto absent = ChatTemplate::FromSource("", "", "").Render(Hello());
  EXPECT_THAT(std::string(absent.status().message()), testing::HasSubstr("no chat template"));
}

// A template that does something more than its family is not taken for it.
TEST(ChatTemplate, AdditionsAreNotOverlooked) {
  const std::string chatml = TemplateSource("chatml");
  ASSERT_EQ(ChatTemplate::FromSource(chatml, "", "").family(), Family::kChatMl);
  for (const std::string& addition : {std::string("{{ 'Today is Monday.' }}"), std::string("Always be brief."),
                                      std::string("{% macro x() %}{% endmacro %}"), std::string("{{ eos_token }}"),
                                      std::string("{{ '<|im_start|>system\\nA<|im_end|>\\n' }}"), std::string("\n ")}) {
    EXPECT_EQ(ChatTemplate::FromSource(addition + chatml, "", "").family(), Family::kNone) << addition;
  }
  auto replaced = [](std::string text, const std::string& from, const std::string& to) {
    const size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return at == std::string::npos ? text : text.replace(at, from.size(), to);
  };
  EXPECT_EQ(
      ChatTemplate::FromSource(replaced(chatml, "message['content']", "message['content'] | trim"), "", "").family(),
      Family::kNone);
  EXPECT_EQ(ChatTemplate::FromSource(replaced(chatml, "'\\n' + message", "'|' + message"), "", "").family(),
            Family::kNone);
  const std::string qwen3 = TemplateSource("qwen3");
  EXPECT_EQ(
      ChatTemplate::FromSource(replaced(qwen3, "enable_thinking is false", "enable_thinking is true"), "", "").family(),
      Family::kNone);
  EXPECT_EQ(ChatTemplate::FromSource(replaced(qwen3, "loop.index0 > ns.last_query_index", "true"), "", "").family(),
            Family::kNone);
}

TEST(ChatTemplate, MalformedSourcesAreNotRecognised) {
  const std::string qwen3 = TemplateSource("qwen3");
  for (size_t length = 0; length < qwen3.size(); length += 7) {
    ChatTemplate::FromSource(std::string_view(qwen3).substr(0, length), "", "");  // must not crash
  }
  for (const char* source :
       {"{{", "{%", "{{ '", "{{ 'a\\", "{{ ')' ) }}", "{#", "{{ '\\x41' }}", "{{ }}", "{% set %}", "{%-", "{{-}}"}) {
    EXPECT_EQ(ChatTemplate::FromSource(source, "", "").family(), Family::kNone) << source;
  }
}

TEST(ChatTemplate, RefusesOtherRoles) {
  const ChatTemplate chat = ChatTemplate::FromSource(TemplateSource("qwen2"), "", "");
  for (const char* role : {"tool", "function", "developer", "", "User"}) {
    const auto rendered = chat.Render({{"user", "a"}, {role, "b"}});
    ASSERT_EQ(rendered.status().code(), absl::StatusCode::kInvalidArgument) << role;
    EXPECT_THAT(std::string(rendered.status().message()), testing::HasSubstr("messages[1].role"));
  }
  EXPECT_FALSE(chat.Render({}).ok());
}

TEST(ChatTemplate, SystemMessageInTheMiddleIsRefusedWhereTheTemplateWouldDropIt) {
  for (const char* name : {"llama-2", "mistral-v1", "mistral-v0.3"}) {
    const ChatTemplate chat = ChatTemplate::FromSource(TemplateSource(name), "<s>", "</s>");
    const auto rendered = chat.Render({{"user", "a"}, {"system", "b"}, {"user", "c"}});
    ASSERT_FALSE(rendered.ok()) << name;
    EXPECT_THAT(std::string(rendered.status().message()), testing::HasSubstr("messages[1].role: expected assistant"));
  }
}

TEST(ChatTemplate, InvalidUtf8BecomesReplacementCharacters) {
  const ChatTemplate chat = ChatTemplate::FromSource(TemplateSource("llama-3"), "<s>", "</s>");
  const auto rendered = chat.Render({{"user", " a\xff\xe3\x80"}});
  ASSERT_TRUE(rendered.ok());
  EXPECT_THAT(*rendered, testing::HasSubstr("\n\na\uFFFD\uFFFD<|eot_id|>"));
}

struct TemplateFiles {
  std::string config, jinja;
  Family family;
};

// chat_template as a string, as a list, in a file of its own; the file wins.
TEST(ChatTemplate, WhereTheTemplateIsFound) {
  const std::string tokenizer_json = ReadFile(TextDataDir() + "/tokenizers/gpt2/tokenizer.json");
  const std::string chatml = TemplateSource("chatml"), llama = TemplateSource("llama-3");
  const json list = {{{"name", "tool_use"}, {"template", "x"}}, {{"name", "default"}, {"template", llama}}};
  const json other = {{{"name", "rag"}, {"template", chatml}}};
  const TemplateFiles files[] = {
      {"", "", Family::kNone},
      {json{{"chat_template", chatml}}.dump(), "", Family::kChatMl},
      {json{{"chat_template", nullptr}}.dump(), "", Family::kNone},
      {json{{"chat_template", list}}.dump(), "", Family::kLlama3},
      {json{{"chat_template", other}}.dump(), "", Family::kNone},
      {json{{"chat_template", chatml}}.dump(), llama, Family::kLlama3},
      {"", llama, Family::kLlama3},
  };
  for (const TemplateFiles& file : files) {
    const TemporaryDirectory directory;
    directory.Write("tokenizer.json", tokenizer_json);
    if (!file.config.empty()) directory.Write("tokenizer_config.json", file.config);
    if (!file.jinja.empty()) directory.Write("chat_template.jinja", file.jinja);
    const std::unique_ptr<Tokenizer> tokenizer = LoadTokenizer(directory.path());
    ASSERT_NE(tokenizer, nullptr);
    EXPECT_EQ(ChatTemplate::FromTokenizer(*tokenizer).family(), file.family) << file.config;
  }
}

// Questions in the models' own templates, with the ids that transformers makes of them.
TEST(ChatTemplate, RealModelsPrompts) {
  const char* models = std::getenv("CAIRN_REAL_MODELS_DIR");
  if (models == nullptr) GTEST_SKIP() << "CAIRN_REAL_MODELS_DIR is not set: it holds the real instruct models";
  const std::string golden_dir = SharedDir() + "/golden/real";
  if (!std::filesystem::exists(golden_dir)) GTEST_SKIP() << golden_dir << " is not there";
  int checked = 0;
  for (const auto& entry : std::filesystem::directory_iterator(golden_dir)) {
    const std::string directory = std::string(models) + "/" + entry.path().stem().string();
    if (!std::filesystem::exists(directory + "/tokenizer.json")) continue;
    const json golden = json::parse(ReadFile(entry.path()));
    const std::unique_ptr<Tokenizer> tokenizer = LoadTokenizer(directory);
    ASSERT_NE(tokenizer, nullptr);
    const ChatTemplate chat = ChatTemplate::FromTokenizer(*tokenizer);
    for (const json& expected : golden["cases"]) {
      const auto rendered = chat.Render(Messages(expected["messages"]));
      ASSERT_TRUE(rendered.ok()) << directory << ": " << rendered.status();
      EXPECT_EQ(tokenizer->Encode(*rendered, /*add_special_tokens=*/false),
                expected["prompt_ids"].get<std::vector<int32_t>>());
      ++checked;
    }
  }
  std::cout << checked << " prompts\n";
  EXPECT_GT(checked, 0);
}

}  // namespace
}  // namespace cairn
