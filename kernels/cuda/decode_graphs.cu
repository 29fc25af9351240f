#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "kernels/core/buffer.h"
#include "kernels/core/check_cuda.h"
#include "kernels/core/status_macros.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/decode_graphs.h"
#include "kernels/cuda/device_state.h"
#include "kernels/cuda/paged.h"

namespace cairn::cuda {
namespace {

size_t Aligned(size_t bytes) { return (bytes + 255) / 256 * 256; }

class CudaDecodeGraphs : public DecodeGraphs {
 public:
  CudaDecodeGraphs(Context* context, const Shape& shape) : context_(context), state_(context->cuda()), shape_(shape) {}

  ~CudaDecodeGraphs() override { Forget(); }

  absl::Status Allocate() {
    const size_t layers = static_cast<size_t>(shape_.num_layers), rows = static_cast<size_t>(shape_.max_rows);
    const size_t records = Aligned(layers * rows * sizeof(PagedSequence)),
                 rings = Aligned(layers * rows * sizeof(float*));
    const size_t items = rows * sizeof(WorkItem);
    CAIRN_ASSIGN_OR_RETURN(memory_, Buffer::Allocate(context_->device(), records + rings + items));
    device_records_ = reinterpret_cast<PagedSequence*>(memory_.data());
    device_rings_ = reinterpret_cast<float**>(memory_.data() + records);
    device_items_ = reinterpret_cast<WorkItem*>(memory_.data() + records + rings);
    std::vector<WorkItem> one_each;
    for (int32_t i = 0; i < shape_.max_rows; ++i) one_each.push_back({i, i});
    state_.CopyIn(device_items_, items, one_each.data(), items, 1);
    return absl::OkStatus();
  }

  void Begin(int rows) override {
    rows_ = rows;
    padded_ = PaddedRows(rows, shape_.max_rows);
    slots_ = 1;
    records_.clear();
    for (int layer = 0; layer < shape_.num_layers; ++layer) {
      // A row that pads has a slot before the first: nothing is written, nothing seen.
      for (int32_t row = 0; row < padded_; ++row) records_.push_back({shape_.pool, 0, row, 1, 0});
    }
    rings_.assign(records_.size(), nullptr);
  }

  void SetLayer(int layer, absl::Span<const KvView> views, absl::Span<float* const> rings) override {
    CAIRN_CHECK(static_cast<int>(views.size()) == rows_ && (rings.empty() || rings.size() == views.size()));
    const size_t first = static_cast<size_t>(layer) * static_cast<size_t>(padded_);
    for (size_t i = 0; i < views.size(); ++i) {
      const KvView& view = views[i];
      PagedSequence& record = records_[first + i];
      CAIRN_CHECK(view.device_tables == shape_.device_tables && view.pool == shape_.pool, "another cache");
      record.table_begin = view.device_table_begin;
      record.num_slots = view.num_slots;
      slots_ = std::max(slots_, view.num_slots);
      if (!rings.empty()) rings_[first + i] = rings[i];
    }
  }

  absl::Status Run(Ops ops) override {
    Send();
    ForgetIfScratchMoved();
    int spans = 1;
    while (spans * kSpanSlots < slots_) spans *= 2;
    const auto found = graphs_.find({padded_, spans});
    if (found != graphs_.end()) {
      CAIRN_CUDA_CHECK(cudaGraphLaunch(found->second, state_.stream()));
      ++num_replayed_;
      return absl::OkStatus();
    }
    std::vector<SequenceRows> sequences;
    for (int32_t row = 0; row < padded_; ++row) {
      sequences.push_back({row, 1, {.layout = shape_.layout, .pool = shape_.pool, .num_slots = spans * kSpanSlots}});
    }
    // Once for real, which also loads and allocates what the first use of anything does.
    CAIRN_RETURN_IF_ERROR(Play(ops, sequences));
    return Record({padded_, spans}, ops, sequences);
  }

  void UseLayer(int layer) override {
    const size_t first = static_cast<size_t>(layer) * static_cast<size_t>(shape_.max_rows);
    tables_ = {device_records_ + first, shape_.device_tables, device_rings_ + first, device_items_};
    state_.UseTables(&tables_);
  }

  int64_t num_recorded() const override { return num_recorded_; }
  int64_t num_replayed() const override { return num_replayed_; }

 private:
  using Kind = std::pair<int, int>;  // rows, spans

  void Send() {
    const size_t layers = static_cast<size_t>(shape_.num_layers), rows = static_cast<size_t>(padded_);
    const size_t pitch = static_cast<size_t>(shape_.max_rows);
    state_.CopyIn(device_records_, pitch * sizeof(PagedSequence), records_.data(), rows * sizeof(PagedSequence),
                  layers);
    state_.CopyIn(device_rings_, pitch * sizeof(float*), rings_.data(), rows * sizeof(float*), layers);
  }

  absl::Status Play(Ops ops, absl::Span<const SequenceRows> sequences) {
    const absl::Status status = ops(sequences);
    state_.UseTables(nullptr);
    return status;
  }

  absl::Status Record(Kind kind, Ops ops, absl::Span<const SequenceRows> sequences) {
    ForgetIfScratchMoved();
    state_.SetRecording(true);
    CAIRN_CUDA_CHECK(cudaStreamBeginCapture(state_.stream(), cudaStreamCaptureModeThreadLocal));
    const absl::Status status = Play(ops, sequences);
    cudaGraph_t graph = nullptr;
    CAIRN_CUDA_CHECK(cudaStreamEndCapture(state_.stream(), &graph));
    state_.SetRecording(false);
    if (status.ok()) {
      CAIRN_CHECK(context_->scratch_allocations() == scratch_allocations_,
                  "scratch memory moved while ops were recorded");
      CAIRN_CUDA_CHECK(cudaGraphInstantiate(&graphs_[kind], graph, 0));
      ++num_recorded_;
    }
    CAIRN_CUDA_CHECK(cudaGraphDestroy(graph));
    return status;
  }

  // What was recorded uses memory that is gone.
  void ForgetIfScratchMoved() {
    if (context_->scratch_allocations() == scratch_allocations_) return;
    Forget();
    scratch_allocations_ = context_->scratch_allocations();
  }

  void Forget() {
    for (const auto& [kind, graph] : graphs_) cudaGraphExecDestroy(graph);
    graphs_.clear();
  }

  Context* context_;
  DeviceState& state_;
  Shape shape_;
  Buffer memory_;
  // On the device: [layers, max_rows], and one list of items for all layers.
  PagedSequence* device_records_ = nullptr;
  float** device_rings_ = nullptr;
  WorkItem* device_items_ = nullptr;
  StepTables tables_;  // of the layer in use

  // Of the step at hand, on the host: [layers, padded_].
  int rows_ = 0, padded_ = 0;
  int32_t slots_ = 1;
  std::vector<PagedSequence> records_;
  std::vector<float*> rings_;

  std::map<Kind, cudaGraphExec_t> graphs_;
  int64_t scratch_allocations_ = 0, num_recorded_ = 0, num_replayed_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<DecodeGraphs>> MakeDecodeGraphs(Context* context, const DecodeGraphs::Shape& shape) {
  auto graphs = std::make_unique<CudaDecodeGraphs>(context, shape);
  CAIRN_RETURN_IF_ERROR(graphs->Allocate());
  return graphs;
}

}  // namespace cairn::cuda
