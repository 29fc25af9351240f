#include "engine/model/load_transformer.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/core/status_macros.h"

namespace cairn {
namespace {

// Rows of one tensor that become rows of a packed matrix.
struct Piece {
  std::string name;
  int64_t total_rows;
  Range rows;
};

class StageLoader {
 public:
  StageLoader(const ModelConfig& config, const StagePlacement& placement, Context& context, Quantization quantization,
              WeightSource& source)
      : config_(config),
        placement_(placement),
        compute_(context.activation_dtype()),
        quantization_(quantization),
        device_(context.device()),
        bias_dtype_(context.storage_dtype()),
        row_bias_dtype_(placement.tp == 1 ? bias_dtype_ : DType::kFloat32),
        source_(source) {}

  absl::StatusOr<StageWeights> Load(const LoadProgress& progress) {
    StageWeights stage;
    CAIRN_RETURN_IF_ERROR(
        CheckTensorParallel(config_.num_heads, config_.num_kv_heads, config_.intermediate_size, placement_.tp));
    CAIRN_ASSIGN_OR_RETURN(stage.heads,
                           ShardHeads(config_.num_heads, config_.num_kv_heads, placement_.tp, placement_.tp_rank));
    stage.layers = placement_.layers;
    stage.vocab = VocabShard(config_.vocab_size, placement_.tp, placement_.tp_rank);
    CAIRN_ASSIGN_OR_RETURN(
        stage.inverse_frequencies,
        WeightVector::Create(device_, DType::kFloat32, RopeInverseFrequencies(config_.rope, config_.head_dim)));
    const double parts = static_cast<double>(stage.layers.size()) + 1;
    for (int64_t l = stage.layers.begin; l < stage.layers.end; ++l) {
      const std::string prefix = absl::StrCat("model.layers.", l, ".");
      LayerWeights layer;
      CAIRN_RETURN_IF_ERROR(LoadAttention(prefix, stage.heads, layer.attention));
      CAIRN_RETURN_IF_ERROR(LoadMlp(prefix, layer.mlp));
      stage.layer.push_back(std::move(layer));
      if (progress) progress(static_cast<double>(stage.layer.size()) / parts);
    }
    CAIRN_RETURN_IF_ERROR(LoadEnds(stage));
    if (progress) progress(1.0);
    return stage;
  }

 private:
  absl::Status LoadAttention(const std::string& prefix, const HeadShard& heads, AttentionWeights& weights) {
    const int64_t d = config_.head_dim, hidden = config_.hidden_size;
    const std::string attn = absl::StrCat(prefix, "self_attn.");
    const Range q = {heads.query_heads.begin * d, heads.query_heads.end * d};
    const Range kv = {heads.kv_heads.begin * d, heads.kv_heads.end * d};
    const std::vector<Piece> pieces = {{attn + "q_proj", config_.num_heads * d, q},
                                       {attn + "k_proj", config_.num_kv_heads * d, kv},
                                       {attn + "v_proj", config_.num_kv_heads * d, kv}};
    CAIRN_ASSIGN_OR_RETURN(weights.norm, Norm(prefix + "input_layernorm.weight", hidden));
    CAIRN_ASSIGN_OR_RETURN(weights.qkv.weight, Linear(pieces, hidden, {0, hidden}));
    if (config_.qkv_bias) {
      CAIRN_ASSIGN_OR_RETURN(weights.qkv.bias, Bias(pieces, bias_dtype_));
    }
    if (config_.qk_norm) {
      CAIRN_ASSIGN_OR_RETURN(weights.q_norm, Norm(attn + "q_norm.weight", d));
      CAIRN_ASSIGN_OR_RETURN(weights.k_norm, Norm(attn + "k_norm.weight", d));
    }
    CAIRN_ASSIGN_OR_RETURN(weights.o.weight,
                           Linear({{attn + "o_proj", hidden, {0, hidden}}}, config_.num_heads * d, q));
    if (config_.o_bias) {
      CAIRN_ASSIGN_OR_RETURN(weights.o.bias, Bias({{attn + "o_proj", hidden, {0, hidden}}}, row_bias_dtype_));
    }
    return absl::OkStatus();
  }

  absl::Status LoadMlp(const std::string& prefix, MlpWeights& weights) {
    const int64_t hidden = config_.hidden_size, inner = config_.intermediate_size;
    const std::string mlp = absl::StrCat(prefix, "mlp.");
    const Range shard = EvenShard(inner, placement_.tp, placement_.tp_rank);
    const std::vector<Piece> pieces = {{mlp + "gate_proj", inner, shard}, {mlp + "up_proj", inner, shard}};
    CAIRN_ASSIGN_OR_RETURN(weights.norm, Norm(prefix + "post_attention_layernorm.weight", hidden));
    CAIRN_ASSIGN_OR_RETURN(weights.gate_up.weight, Linear(pieces, hidden, {0, hidden}));
    CAIRN_ASSIGN_OR_RETURN(weights.down.weight, Linear({{mlp + "down_proj", hidden, {0, hidden}}}, inner, shard));
    if (config_.mlp_bias) {
      CAIRN_ASSIGN_OR_RETURN(weights.gate_up.bias, Bias(pieces, bias_dtype_));
      CAIRN_ASSIGN_OR_RETURN(weights.down.bias, Bias({{mlp + "down_proj", hidden, {0, hidden}}}, row_bias_dtype_));
    }
    return absl::OkStatus();
  }

  // Embedding on the first stage, final norm and head on the last; tied weights once where both are here.
  absl::Status LoadEnds(StageWeights& stage) {
    const auto table = [&](const std::string& name) -> absl::StatusOr<std::shared_ptr<PackedMatrix>> {
      CAIRN_ASSIGN_OR_RETURN(PackedMatrix matrix, Matrix({{name, config_.vocab_size, stage.vocab}}, config_.hidden_size,
                                                         {0, config_.hidden_size}, Quantization::kNone));
      return std::make_shared<PackedMatrix>(std::move(matrix));
    };
    if (placement_.first_stage) {
      CAIRN_ASSIGN_OR_RETURN(stage.embedding, table("model.embed_tokens"));
    }
    if (placement_.last_stage) {
      CAIRN_ASSIGN_OR_RETURN(stage.final_norm, Norm("model.norm.weight", config_.hidden_size));
      if (!config_.tie_word_embeddings) {
        CAIRN_ASSIGN_OR_RETURN(stage.head, table("lm_head"));
      } else if (placement_.first_stage) {
        stage.head = stage.embedding;
      } else {
        CAIRN_ASSIGN_OR_RETURN(stage.head, table("model.embed_tokens"));
      }
    }
    return absl::OkStatus();
  }

  absl::StatusOr<PackedMatrix> Linear(const std::vector<Piece>& pieces, int64_t total_columns, Range columns) {
    return Matrix(pieces, total_columns, columns, quantization_);
  }

  // Rows of several tensors of `total_columns` columns each, one below the other; of each the columns `columns`.
  absl::StatusOr<PackedMatrix> Matrix(const std::vector<Piece>& pieces, int64_t total_columns, Range columns,
                                      Quantization quantization) {
    int64_t rows = 0;
    for (const Piece& piece : pieces) rows += piece.rows.size();
    CAIRN_ASSIGN_OR_RETURN(const DType first, source_.TypeOf(pieces[0].name + ".weight"));
    bool float8 = quantization == Quantization::kFp8;
    for (const Piece& piece : pieces) {
      CAIRN_ASSIGN_OR_RETURN(const DType stored, source_.TypeOf(piece.name + ".weight"));
      float8 = float8 || stored == DType::kFloat8E4M3;
    }
    const DType type = float8                                ? DType::kFloat8E4M3
                       : quantization == Quantization::kInt8 ? DType::kInt8
                                                             : PackedTypeFor(first, compute_, device_);
    CAIRN_ASSIGN_OR_RETURN(PackedMatrix matrix, PackedMatrix::Create(device_, type, rows, columns.size()));
    int64_t row = 0;
    for (const Piece& piece : pieces) {
      CAIRN_RETURN_IF_ERROR(LoadPacked(source_, piece.name + ".weight", {piece.total_rows, total_columns}, piece.rows,
                                       columns, matrix, row));
      row += piece.rows.size();
    }
    return matrix;
  }

  absl::StatusOr<WeightVector> Bias(const std::vector<Piece>& pieces, DType dtype) {
    std::vector<float> bias;
    for (const Piece& piece : pieces) {
      CAIRN_ASSIGN_OR_RETURN(const std::vector<float> part,
                             LoadVector(source_, piece.name + ".bias", piece.total_rows, piece.rows));
      bias.insert(bias.end(), part.begin(), part.end());
    }
    return WeightVector::Create(device_, dtype, bias);
  }

  absl::StatusOr<WeightVector> Norm(const std::string& name, int64_t size) {
    CAIRN_ASSIGN_OR_RETURN(const std::vector<float> values, LoadVector(source_, name, size, {0, size}));
    return WeightVector::Create(device_, DType::kFloat32, values);
  }

  const ModelConfig& config_;
  const StagePlacement& placement_;
  DType compute_;
  Quantization quantization_;
  Device device_;
  DType bias_dtype_, row_bias_dtype_;  // of column-parallel and row-parallel linears
  WeightSource& source_;
};

}  // namespace

absl::StatusOr<StageWeights> LoadStage(const ModelConfig& config, const StagePlacement& placement, Context& context,
                                       Quantization quantization, WeightSource& source, const LoadProgress& progress) {
  return StageLoader(config, placement, context, quantization, source).Load(progress);
}

}  // namespace cairn
