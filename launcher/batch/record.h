// A finished item as a line of the output file: OpenAI's batch result object.
#ifndef CAIRN_LAUNCHER_BATCH_RECORD_H_
#define CAIRN_LAUNCHER_BATCH_RECORD_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "engine/request.h"
#include "engine/text/reasoning_parser.h"
#include "engine/text/tokenizer.h"
#include "launcher/batch/batch_item.h"

namespace cairn {

struct RecordCounts {
  int64_t prompt_tokens = 0, completion_tokens = 0, reasoning_tokens = 0;
  int64_t answers = 0, answers_cut = 0;  // cut: finish_reason "length"
};

struct Record {
  int64_t line = 0;  // of the input
  bool ok = false;
  RecordCounts counts;  // of an ok record
  std::string json;     // without a newline
};

class RecordBuilder {
 public:
  // `tokenizer` may be null (a dummy model): answers are then token ids. `model` is what "model" says. `run_id` makes
  // the ids of one job differ from another's.
  RecordBuilder(const Tokenizer* tokenizer, std::string model, ReasoningFormat reasoning, std::string run_id)
      : tokenizer_(tokenizer), model_(std::move(model)), reasoning_(reasoning), run_id_(std::move(run_id)) {}

  // `created`: Unix time. `output` is finished.
  Record Success(const BatchItem& item, const std::vector<int32_t>& prompt_ids, const RequestOutput& output,
                 int64_t created) const;
  Record Failure(const BatchItem& item, const ItemError& error) const;

 private:
  struct Built;
  Built Choice(const BatchItem& item, const std::vector<int32_t>& prompt_ids, const Completion& completion) const;

  const Tokenizer* tokenizer_;
  std::string model_;
  ReasoningFormat reasoning_;
  std::string run_id_;
};

}  // namespace cairn

#endif  // CAIRN_LAUNCHER_BATCH_RECORD_H_
