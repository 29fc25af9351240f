#include "launcher/batch/replica_worker.h"

#include <ctime>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/core/check.h"
#include "kernels/core/status_macros.h"

namespace cairn {
namespace {

// The code of an item that the engine, the template or the tokenizer refuses; "" for an error that is not the item's.
std::string ItemErrorCode(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOutOfRange:
      return "context_length_exceeded";
    case absl::StatusCode::kInvalidArgument:
      return "invalid_request";
    default:
      return "";
  }
}

}  // namespace

ReplicaWorker::ReplicaWorker(BatchEngine& engine, const Tokenizer* tokenizer, const RecordBuilder& records)
    : engine_(engine), tokenizer_(tokenizer), records_(records) {
  if (tokenizer_ != nullptr) template_ = ChatTemplate::FromTokenizer(*tokenizer_);
}

absl::StatusOr<std::vector<int32_t>> ReplicaWorker::PromptIds(const BatchItem& item) const {
  if (item.prompt_ids.has_value()) return *item.prompt_ids;
  if (tokenizer_ == nullptr) {
    return absl::InvalidArgumentError("this model has no tokenizer: send \"prompt\" as token ids to /v1/completions");
  }
  if (item.endpoint == Endpoint::kCompletions) return tokenizer_->Encode(item.prompt, item.add_special_tokens);
  CAIRN_ASSIGN_OR_RETURN(const std::string text, template_.Render(item.messages, item.enable_thinking));
  return tokenizer_->Encode(text, item.add_special_tokens);
}

absl::StatusOr<std::optional<Record>> ReplicaWorker::Add(BatchItem item) {
  absl::StatusOr<std::vector<int32_t>> prompt_ids = PromptIds(item);
  absl::Status status = prompt_ids.status();
  if (status.ok()) status = engine_.Add({.id = item.custom_id, .prompt_ids = *prompt_ids, .sampling = item.sampling});
  if (!status.ok()) {
    const std::string code = ItemErrorCode(status);
    if (code.empty()) return status;
    return records_.Failure(item, {code, absl::StrCat("line ", item.line, ": ", status.message())});
  }
  item.messages.clear();
  item.prompt.clear();
  item.prompt_ids.reset();
  if (!item.return_token_ids) prompt_ids->clear();
  std::string id = item.custom_id;
  pending_[std::move(id)] = {std::move(item), *std::move(prompt_ids)};
  return std::nullopt;
}

absl::StatusOr<std::vector<Record>> ReplicaWorker::Step() {
  CAIRN_ASSIGN_OR_RETURN(const std::vector<RequestOutput> outputs, engine_.Step());
  std::vector<Record> records;
  for (const RequestOutput& output : outputs) {
    if (!output.finished) continue;
    const auto found = pending_.find(output.id);
    CAIRN_CHECK(found != pending_.end(), "the engine finished ", output.id, ", which was not added");
    records.push_back(records_.Success(found->second.item, found->second.prompt_ids, output, std::time(nullptr)));
    pending_.erase(found);
  }
  return records;
}

absl::Status ReplicaWorker::CancelAll() {
  for (const auto& [id, pending] : pending_) CAIRN_RETURN_IF_ERROR(engine_.Cancel(id));
  pending_.clear();
  while (engine_.HasWork()) CAIRN_RETURN_IF_ERROR(engine_.Step().status());
  return absl::OkStatus();
}

}  // namespace cairn
