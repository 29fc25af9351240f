// Every PTX instruction that the kernels use beyond CUDA C++'s intrinsics: a device half for nvcc and a host half for
// the emulator, side by side. Fragment layouts are those of the PTX ISA, "Matrix fragments for mma.m16n8k16" and
// "ldmatrix".
#ifndef CAIRN_KERNELS_CUDA_PTX_H_
#define CAIRN_KERNELS_CUDA_PTX_H_

#include <cmath>
#include <cstdint>

#include "kernels/cuda/launch.h"

namespace cairn::cuda {

#if defined(__CUDACC__)

__device__ __forceinline__ unsigned SharedAddress(const void* p) {
  return static_cast<unsigned>(__cvta_generic_to_shared(p));
}

// d += a b for one warp. a [16, 16] row-major, b [16, 8] column-major, d [16, 8] f32. With g = lane / 4, t = lane % 4:
//   a[0..3]  rows g, g + 8, g, g + 8; columns 2t, 2t + 1 (first two), 2t + 8, 2t + 9 (last two); low half first
//   b[0..1]  rows 2t, 2t + 1 and 2t + 8, 2t + 9 of column g
//   d[0..3]  row g columns 2t, 2t + 1, row g + 8 columns 2t, 2t + 1
__device__ __forceinline__ void MmaBf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ __forceinline__ void MmaF16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Four 8 x 8 matrices of 16-bit elements from shared memory: lane l gives the address of row l % 8 of matrix l / 8
// (16-byte aligned); it receives of matrix i elements 2t, 2t + 1 of row g in r[i] (Transposed: of column g).
__device__ __forceinline__ void LoadMatrices(unsigned (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(SharedAddress(row))
               : "memory");
}
__device__ __forceinline__ void LoadMatricesTransposed(unsigned (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(SharedAddress(row))
               : "memory");
}

// 16 bytes from device to shared memory, behind the thread's back; zeros where !valid (the source is not read, but must
// be an aligned device address).
__device__ __forceinline__ void CopyAsync16(void* shared, const void* source, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(SharedAddress(shared)),
               "l"(__cvta_generic_to_global(source)), "r"(valid ? 16 : 0)
               : "memory");
}
// Closes a group of copies.
__device__ __forceinline__ void CopyAsyncCommit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Until at most kPending of this thread's groups are under way; other threads' copies need a barrier besides.
template <int kPending>
__device__ __forceinline__ void CopyAsyncWait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// 2^x within 2 ulp; 0 for -inf.
__device__ __forceinline__ float Exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

#else  // the emulator's halves

struct MmaArguments {
  float* d;
  const unsigned* a;
  const unsigned* b;
};

template <typename Half>
float HalfOf(unsigned pair, int i) {
  return static_cast<float>(cuda_emulator::BitsTo<Half>(i == 0 ? pair & 0xffff : pair >> 16));
}

template <typename Half>
void MmaLanes(void* const lanes[32], unsigned) {
  float a[16][16], b[16][8], d[16][8];
  const auto row_of_d = [](int lane, int i) { return lane / 4 + (i >= 2 ? 8 : 0); };
  const auto column_of_d = [](int lane, int i) { return lane % 4 * 2 + i % 2; };
  for (int lane = 0; lane < 32; ++lane) {
    const MmaArguments& own = *static_cast<MmaArguments*>(lanes[lane]);
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 8; ++i) {
      a[g + (i / 2 % 2 == 1 ? 8 : 0)][t * 2 + i % 2 + (i >= 4 ? 8 : 0)] = HalfOf<Half>(own.a[i / 2], i % 2);
    }
    for (int i = 0; i < 4; ++i) b[t * 2 + i % 2 + (i >= 2 ? 8 : 0)][g] = HalfOf<Half>(own.b[i / 2], i % 2);
    for (int i = 0; i < 4; ++i) d[row_of_d(lane, i)][column_of_d(lane, i)] = own.d[i];
  }
  for (int m = 0; m < 16; ++m) {
    for (int n = 0; n < 8; ++n) {
      for (int k = 0; k < 16; ++k) d[m][n] += a[m][k] * b[k][n];
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 4; ++i) {
      static_cast<MmaArguments*>(lanes[lane])->d[i] = d[row_of_d(lane, i)][column_of_d(lane, i)];
    }
  }
}

inline void MmaBf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], CUDA_EMULATOR_AT) {
  MmaArguments arguments = {d, a, b};
  cuda_emulator::WarpCollective("mma", cuda_emulator::kFullMask, &arguments, &MmaLanes<__nv_bfloat16>, file_, line_);
}
inline void MmaF16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], CUDA_EMULATOR_AT) {
  MmaArguments arguments = {d, a, b};
  cuda_emulator::WarpCollective("mma", cuda_emulator::kFullMask, &arguments, &MmaLanes<__half>, file_, line_);
}

struct LoadMatricesArguments {
  unsigned* r;
  const void* row;
  const char* file;
  int line;
};

template <bool kTransposed>
void LoadMatricesLanes(void* const lanes[32], unsigned) {
  for (int i = 0; i < 4; ++i) {
    uint16_t matrix[8][8];
    for (int row = 0; row < 8; ++row) {
      const LoadMatricesArguments& own = *static_cast<LoadMatricesArguments*>(lanes[i * 8 + row]);
      if (reinterpret_cast<uintptr_t>(own.row) % 16 != 0) {
        cuda_emulator::Fail("ldmatrix: a row is not 16-byte aligned", own.file, own.line);
      }
      cuda_emulator::NoteAccess(own.row, 16, /*is_write=*/false, i * 8 + row);
      std::memcpy(matrix[row], own.row, 16);
    }
    for (int lane = 0; lane < 32; ++lane) {
      const int g = lane / 4, t = lane % 4 * 2;
      const unsigned low = kTransposed ? matrix[t][g] : matrix[g][t];
      const unsigned high = kTransposed ? matrix[t + 1][g] : matrix[g][t + 1];
      static_cast<LoadMatricesArguments*>(lanes[lane])->r[i] = low | high << 16;
    }
  }
}

inline void LoadMatrices(unsigned (&r)[4], const void* row, CUDA_EMULATOR_AT) {
  LoadMatricesArguments arguments = {r, row, file_, line_};
  cuda_emulator::WarpCollective("ldmatrix", cuda_emulator::kFullMask, &arguments, &LoadMatricesLanes<false>, file_,
                                line_);
}
inline void LoadMatricesTransposed(unsigned (&r)[4], const void* row, CUDA_EMULATOR_AT) {
  LoadMatricesArguments arguments = {r, row, file_, line_};
  cuda_emulator::WarpCollective("ldmatrix.trans", cuda_emulator::kFullMask, &arguments, &LoadMatricesLanes<true>, file_,
                                line_);
}

inline void CopyAsync16(void* shared, const void* source, bool valid, CUDA_EMULATOR_AT) {
  cuda_emulator::CopyAsync(shared, source, 16, valid ? 16 : 0, file_, line_);
}
inline void CopyAsyncCommit() { cuda_emulator::CopyAsyncCommit(); }
template <int kPending>
void CopyAsyncWait() {
  cuda_emulator::CopyAsyncWait(kPending);
}

inline float Exp2(float x) { return std::exp2(x); }

#endif

}  // namespace cairn::cuda

#endif  // CAIRN_KERNELS_CUDA_PTX_H_
