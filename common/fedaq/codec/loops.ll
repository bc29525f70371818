; The inner loops of the codec. Written by `make loops`; do not edit.
; From e2c82c8e4e30b86ca1027a79ad90d50f
; by numba 0.68.1, llvmlite 0.50.0, Python 3.11, x86_64
; ModuleID = 'loops'
source_filename = "<string>"

; Function Attrs: nocallback nocreateundeforpoison nofree nosync nounwind speculatable willreturn memory(none)
declare double @llvm.fabs.f64(double) #0

define void @statistics(ptr %0, i64 %1, ptr %2, ptr %3) {
  %5 = alloca [16 x i32], align 64
  %6 = alloca [16 x i32], align 64
  %7 = alloca [16 x double], align 64
  %8 = alloca [16 x double], align 64
  %9 = alloca [16 x double], align 64
  call void @llvm.lifetime.start.p0(ptr nonnull %5)
  call void @llvm.lifetime.start.p0(ptr nonnull %6)
  call void @llvm.lifetime.start.p0(ptr nonnull %7)
  call void @llvm.lifetime.start.p0(ptr nonnull %8)
  call void @llvm.lifetime.start.p0(ptr nonnull %9)
  br label %10

10:                                               ; preds = %4, %51
  %11 = phi i64 [ 0, %4 ], [ %53, %51 ]
  %12 = phi i64 [ 16, %4 ], [ %52, %51 ]
  %13 = icmp sgt i64 %12, 0
  br i1 %13, label %51, label %14

14:                                               ; preds = %10
  %15 = and i64 %1, -16
  %16 = call i64 @llvm.smax.i64(i64 %1, i64 15)
  %17 = lshr i64 %16, 4
  br label %18

18:                                               ; preds = %22, %14
  %19 = phi i64 [ 0, %14 ], [ %76, %22 ]
  %20 = phi i64 [ %17, %14 ], [ %75, %22 ]
  %21 = icmp sgt i64 %20, 0
  br i1 %21, label %74, label %26

22:                                               ; preds = %77, %74
  %23 = phi i64 [ 0, %74 ], [ %79, %77 ]
  %24 = phi i64 [ 16, %74 ], [ %78, %77 ]
  %25 = icmp sgt i64 %24, 0
  br i1 %25, label %77, label %18

26:                                               ; preds = %18
  %27 = and i64 %1, 15
  br label %28

28:                                               ; preds = %148, %26
  %29 = phi i64 [ %15, %26 ], [ %150, %148 ]
  %30 = phi i64 [ %27, %26 ], [ %149, %148 ]
  %31 = icmp sgt i64 %30, 0
  br i1 %31, label %148, label %32

32:                                               ; preds = %28, %224
  %33 = phi i64 [ %226, %224 ], [ 1, %28 ]
  %34 = phi i64 [ %225, %224 ], [ 15, %28 ]
  %35 = icmp sgt i64 %34, 0
  br i1 %35, label %224, label %36

36:                                               ; preds = %32
  %37 = load i32, ptr %5, align 4
  %38 = icmp slt i32 %37, 0
  %39 = select i1 %38, i32 2147483647, i32 0
  %40 = xor i32 %39, %37
  store i32 %40, ptr %2, align 4
  %41 = load i32, ptr %6, align 4
  %42 = icmp slt i32 %41, 0
  %43 = select i1 %42, i32 2147483647, i32 0
  %44 = xor i32 %43, %41
  %45 = getelementptr i8, ptr %2, i64 4
  store i32 %44, ptr %45, align 4
  %46 = load double, ptr %7, align 8
  store double %46, ptr %3, align 8
  %47 = load double, ptr %8, align 8
  %48 = getelementptr i8, ptr %3, i64 8
  store double %47, ptr %48, align 8
  %49 = load double, ptr %9, align 8
  %50 = getelementptr i8, ptr %3, i64 16
  store double %49, ptr %50, align 8
  call void @llvm.lifetime.end.p0(ptr nonnull %5)
  call void @llvm.lifetime.end.p0(ptr nonnull %6)
  call void @llvm.lifetime.end.p0(ptr nonnull %7)
  call void @llvm.lifetime.end.p0(ptr nonnull %8)
  call void @llvm.lifetime.end.p0(ptr nonnull %9)
  ret void

51:                                               ; preds = %10
  %52 = add nsw i64 %12, -1
  %53 = add i64 %11, 1
  %54 = lshr i64 %11, 59
  %55 = and i64 %54, 16
  %56 = getelementptr i32, ptr %5, i64 %11
  %57 = getelementptr i32, ptr %56, i64 %55
  store i32 2147483647, ptr %57, align 4
  %58 = lshr i64 %11, 59
  %59 = and i64 %58, 16
  %60 = getelementptr i32, ptr %6, i64 %11
  %61 = getelementptr i32, ptr %60, i64 %59
  store i32 -2147483648, ptr %61, align 4
  %62 = lshr i64 %11, 59
  %63 = and i64 %62, 16
  %64 = getelementptr double, ptr %7, i64 %11
  %65 = getelementptr double, ptr %64, i64 %63
  store double 0.000000e+00, ptr %65, align 8
  %66 = lshr i64 %11, 59
  %67 = and i64 %66, 16
  %68 = getelementptr double, ptr %8, i64 %11
  %69 = getelementptr double, ptr %68, i64 %67
  store double 0.000000e+00, ptr %69, align 8
  %70 = lshr i64 %11, 59
  %71 = and i64 %70, 16
  %72 = getelementptr double, ptr %9, i64 %11
  %73 = getelementptr double, ptr %72, i64 %71
  store double 0.000000e+00, ptr %73, align 8
  br label %10

74:                                               ; preds = %18
  %75 = add nsw i64 %20, -1
  %76 = add i64 %19, 16
  br label %22

77:                                               ; preds = %22
  %78 = add nsw i64 %24, -1
  %79 = add i64 %23, 1
  %80 = add nsw i64 %19, %23
  %81 = icmp slt i64 %80, 0
  %82 = select i1 %81, i64 %1, i64 0
  %83 = getelementptr i32, ptr %0, i64 %80
  %84 = getelementptr i32, ptr %83, i64 %82
  %85 = load i32, ptr %84, align 4
  %86 = icmp slt i32 %85, 0
  %87 = select i1 %86, i32 2147483647, i32 0
  %88 = xor i32 %87, %85
  %89 = lshr i64 %23, 59
  %90 = and i64 %89, 16
  %91 = getelementptr i32, ptr %5, i64 %23
  %92 = getelementptr i32, ptr %91, i64 %90
  %93 = load i32, ptr %92, align 4
  %94 = call i32 @llvm.smin.i32(i32 %93, i32 %88)
  %95 = lshr i64 %23, 59
  %96 = and i64 %95, 16
  %97 = getelementptr i32, ptr %5, i64 %23
  %98 = getelementptr i32, ptr %97, i64 %96
  store i32 %94, ptr %98, align 4
  %99 = lshr i64 %23, 59
  %100 = and i64 %99, 16
  %101 = getelementptr i32, ptr %6, i64 %23
  %102 = getelementptr i32, ptr %101, i64 %100
  %103 = load i32, ptr %102, align 4
  %104 = call i32 @llvm.smax.i32(i32 %103, i32 %88)
  %105 = lshr i64 %23, 59
  %106 = and i64 %105, 16
  %107 = getelementptr i32, ptr %6, i64 %23
  %108 = getelementptr i32, ptr %107, i64 %106
  store i32 %104, ptr %108, align 4
  %109 = add nsw i64 %19, %23
  %110 = icmp slt i64 %109, 0
  %111 = select i1 %110, i64 %1, i64 0
  %112 = getelementptr float, ptr %0, i64 %109
  %113 = getelementptr float, ptr %112, i64 %111
  %114 = load float, ptr %113, align 4
  %115 = fpext float %114 to double
  %116 = lshr i64 %23, 59
  %117 = and i64 %116, 16
  %118 = getelementptr double, ptr %7, i64 %23
  %119 = getelementptr double, ptr %118, i64 %117
  %120 = load double, ptr %119, align 8
  %121 = fadd double %120, %115
  %122 = lshr i64 %23, 59
  %123 = and i64 %122, 16
  %124 = getelementptr double, ptr %7, i64 %23
  %125 = getelementptr double, ptr %124, i64 %123
  store double %121, ptr %125, align 8
  %126 = lshr i64 %23, 59
  %127 = and i64 %126, 16
  %128 = getelementptr double, ptr %8, i64 %23
  %129 = getelementptr double, ptr %128, i64 %127
  %130 = load double, ptr %129, align 8
  %131 = fmul double %115, %115
  %132 = fadd double %130, %131
  %133 = lshr i64 %23, 59
  %134 = and i64 %133, 16
  %135 = getelementptr double, ptr %8, i64 %23
  %136 = getelementptr double, ptr %135, i64 %134
  store double %132, ptr %136, align 8
  %137 = lshr i64 %23, 59
  %138 = and i64 %137, 16
  %139 = getelementptr double, ptr %9, i64 %23
  %140 = getelementptr double, ptr %139, i64 %138
  %141 = load double, ptr %140, align 8
  %142 = call double @llvm.fabs.f64(double %115)
  %143 = fadd double %141, %142
  %144 = lshr i64 %23, 59
  %145 = and i64 %144, 16
  %146 = getelementptr double, ptr %9, i64 %23
  %147 = getelementptr double, ptr %146, i64 %145
  store double %143, ptr %147, align 8
  br label %22

148:                                              ; preds = %28
  %149 = add nsw i64 %30, -1
  %150 = add i64 %29, 1
  %151 = icmp slt i64 %29, 0
  %152 = select i1 %151, i64 %1, i64 0
  %153 = getelementptr i32, ptr %0, i64 %29
  %154 = getelementptr i32, ptr %153, i64 %152
  %155 = load i32, ptr %154, align 4
  %156 = icmp slt i32 %155, 0
  %157 = select i1 %156, i32 2147483647, i32 0
  %158 = xor i32 %157, %155
  %159 = sub nsw i64 %29, %15
  %160 = lshr i64 %159, 59
  %161 = and i64 %160, 16
  %162 = getelementptr i32, ptr %5, i64 %159
  %163 = getelementptr i32, ptr %162, i64 %161
  %164 = load i32, ptr %163, align 4
  %165 = call i32 @llvm.smin.i32(i32 %164, i32 %158)
  %166 = sub nsw i64 %29, %15
  %167 = lshr i64 %166, 59
  %168 = and i64 %167, 16
  %169 = getelementptr i32, ptr %5, i64 %166
  %170 = getelementptr i32, ptr %169, i64 %168
  store i32 %165, ptr %170, align 4
  %171 = sub nsw i64 %29, %15
  %172 = lshr i64 %171, 59
  %173 = and i64 %172, 16
  %174 = getelementptr i32, ptr %6, i64 %171
  %175 = getelementptr i32, ptr %174, i64 %173
  %176 = load i32, ptr %175, align 4
  %177 = call i32 @llvm.smax.i32(i32 %176, i32 %158)
  %178 = sub nsw i64 %29, %15
  %179 = lshr i64 %178, 59
  %180 = and i64 %179, 16
  %181 = getelementptr i32, ptr %6, i64 %178
  %182 = getelementptr i32, ptr %181, i64 %180
  store i32 %177, ptr %182, align 4
  %183 = icmp slt i64 %29, 0
  %184 = select i1 %183, i64 %1, i64 0
  %185 = getelementptr float, ptr %0, i64 %29
  %186 = getelementptr float, ptr %185, i64 %184
  %187 = load float, ptr %186, align 4
  %188 = fpext float %187 to double
  %189 = sub nsw i64 %29, %15
  %190 = lshr i64 %189, 59
  %191 = and i64 %190, 16
  %192 = getelementptr double, ptr %7, i64 %189
  %193 = getelementptr double, ptr %192, i64 %191
  %194 = load double, ptr %193, align 8
  %195 = fadd double %194, %188
  %196 = lshr i64 %189, 59
  %197 = and i64 %196, 16
  %198 = getelementptr double, ptr %7, i64 %189
  %199 = getelementptr double, ptr %198, i64 %197
  store double %195, ptr %199, align 8
  %200 = sub nsw i64 %29, %15
  %201 = lshr i64 %200, 59
  %202 = and i64 %201, 16
  %203 = getelementptr double, ptr %8, i64 %200
  %204 = getelementptr double, ptr %203, i64 %202
  %205 = load double, ptr %204, align 8
  %206 = fmul double %188, %188
  %207 = fadd double %205, %206
  %208 = lshr i64 %200, 59
  %209 = and i64 %208, 16
  %210 = getelementptr double, ptr %8, i64 %200
  %211 = getelementptr double, ptr %210, i64 %209
  store double %207, ptr %211, align 8
  %212 = sub nsw i64 %29, %15
  %213 = lshr i64 %212, 59
  %214 = and i64 %213, 16
  %215 = getelementptr double, ptr %9, i64 %212
  %216 = getelementptr double, ptr %215, i64 %214
  %217 = load double, ptr %216, align 8
  %218 = call double @llvm.fabs.f64(double %188)
  %219 = fadd double %217, %218
  %220 = lshr i64 %212, 59
  %221 = and i64 %220, 16
  %222 = getelementptr double, ptr %9, i64 %212
  %223 = getelementptr double, ptr %222, i64 %221
  store double %219, ptr %223, align 8
  br label %28

224:                                              ; preds = %32
  %225 = add nsw i64 %34, -1
  %226 = add i64 %33, 1
  %227 = load i32, ptr %5, align 4
  %228 = lshr i64 %33, 59
  %229 = and i64 %228, 16
  %230 = getelementptr i32, ptr %5, i64 %33
  %231 = getelementptr i32, ptr %230, i64 %229
  %232 = load i32, ptr %231, align 4
  %233 = call i32 @llvm.smin.i32(i32 %227, i32 %232)
  store i32 %233, ptr %5, align 4
  %234 = load i32, ptr %6, align 4
  %235 = lshr i64 %33, 59
  %236 = and i64 %235, 16
  %237 = getelementptr i32, ptr %6, i64 %33
  %238 = getelementptr i32, ptr %237, i64 %236
  %239 = load i32, ptr %238, align 4
  %240 = call i32 @llvm.smax.i32(i32 %234, i32 %239)
  store i32 %240, ptr %6, align 4
  %241 = load double, ptr %7, align 8
  %242 = lshr i64 %33, 59
  %243 = and i64 %242, 16
  %244 = getelementptr double, ptr %7, i64 %33
  %245 = getelementptr double, ptr %244, i64 %243
  %246 = load double, ptr %245, align 8
  %247 = fadd double %241, %246
  store double %247, ptr %7, align 8
  %248 = load double, ptr %8, align 8
  %249 = lshr i64 %33, 59
  %250 = and i64 %249, 16
  %251 = getelementptr double, ptr %8, i64 %33
  %252 = getelementptr double, ptr %251, i64 %250
  %253 = load double, ptr %252, align 8
  %254 = fadd double %248, %253
  store double %254, ptr %8, align 8
  %255 = load double, ptr %9, align 8
  %256 = lshr i64 %33, 59
  %257 = and i64 %256, 16
  %258 = getelementptr double, ptr %9, i64 %33
  %259 = getelementptr double, ptr %258, i64 %257
  %260 = load double, ptr %259, align 8
  %261 = fadd double %255, %260
  store double %261, ptr %9, align 8
  br label %32
}

define void @quantize_pack(ptr %0, i64 %1, i32 %2, float %3, float %4, i64 %5, i64 %6, i32 %7, i32 %8, ptr %9) {
  %11 = alloca [1024 x i16], align 64
  %12 = alloca [2064 x i8], align 64
  call void @llvm.lifetime.start.p0(ptr nonnull %11)
  call void @llvm.lifetime.start.p0(ptr nonnull %12)
  %13 = mul nsw i64 %1, %5
  %14 = add nsw i64 %13, 7
  %15 = ashr i64 %14, 3
  %16 = sub nsw i64 31, %5
  %17 = shl nuw i64 1, %16
  %18 = sitofp i64 %17 to float
  %19 = icmp eq i64 %6, 0
  %20 = sub nsw i64 31, %5
  %21 = shl nsw i64 -1, %20
  %22 = trunc i64 %21 to i32
  %23 = xor i32 %22, -1
  %24 = select i1 %19, i32 %23, i32 0
  %25 = icmp eq i64 %6, 0
  %26 = sub nsw i64 30, %5
  %27 = shl nuw i64 1, %26
  %28 = trunc i64 %27 to i32
  %29 = select i1 %25, i32 0, i32 %28
  %30 = shl nsw i64 -1, %5
  %31 = xor i64 %30, -1
  %32 = uitofp nneg i64 %31 to float
  %33 = fmul float %32, %18
  %34 = add nuw i64 %1, 1023
  %35 = lshr i64 %34, 10
  %36 = icmp sgt i64 %1, 0
  %37 = select i1 %36, i64 %35, i64 0
  br label %38

38:                                               ; preds = %176, %10
  %39 = phi i64 [ 0, %10 ], [ %70, %176 ]
  %40 = phi i64 [ %37, %10 ], [ %69, %176 ]
  %41 = icmp sgt i64 %40, 0
  br i1 %41, label %68, label %67

42:                                               ; preds = %92, %101
  %43 = phi i64 [ 0, %92 ], [ %103, %101 ]
  %44 = phi i64 [ %95, %92 ], [ %102, %101 ]
  %45 = phi i32 [ %100, %92 ], [ %135, %101 ]
  %46 = icmp sgt i64 %44, 0
  br i1 %46, label %101, label %47

47:                                               ; preds = %42
  %48 = add nuw nsw i64 %95, 7
  %49 = and i64 %48, 9223372036854775800
  %50 = sub nsw i64 %49, %95
  %51 = call i64 @llvm.smax.i64(i64 %50, i64 0)
  br label %52

52:                                               ; preds = %47, %136
  %53 = phi i64 [ %95, %47 ], [ %138, %136 ]
  %54 = phi i64 [ %51, %47 ], [ %137, %136 ]
  %55 = icmp sgt i64 %54, 0
  br i1 %55, label %136, label %56

56:                                               ; preds = %52
  %57 = add nsw i64 %39, %95
  %58 = mul nsw i64 %57, %5
  %59 = add nsw i64 %58, 7
  %60 = ashr i64 %59, 3
  %61 = mul nsw i64 %39, %5
  %62 = ashr exact i64 %61, 3
  %63 = icmp slt i64 %62, 0
  %64 = select i1 %63, i64 %15, i64 0
  %65 = add nsw i64 %62, %64
  %66 = icmp slt i64 %65, 0
  br i1 %66, label %143, label %144, !prof !0

67:                                               ; preds = %38
  call void @llvm.lifetime.end.p0(ptr nonnull %11)
  call void @llvm.lifetime.end.p0(ptr nonnull %12)
  ret void

68:                                               ; preds = %38
  %69 = add nsw i64 %40, -1
  %70 = add i64 %39, 1024
  %71 = add nsw i64 %39, 1024
  %72 = icmp slt i64 %39, 0
  %73 = select i1 %72, i64 %1, i64 0
  %74 = add i64 %39, %73
  %75 = icmp slt i64 %74, 0
  br i1 %75, label %76, label %77, !prof !0

76:                                               ; preds = %68
  br label %77

77:                                               ; preds = %76, %68
  %78 = phi i64 [ 0, %76 ], [ %74, %68 ]
  %79 = icmp slt i64 %74, %1
  br i1 %79, label %81, label %80, !prof !1

80:                                               ; preds = %77
  br label %81

81:                                               ; preds = %80, %77
  %82 = phi i64 [ %1, %80 ], [ %78, %77 ]
  %83 = icmp slt i64 %39, -1024
  %84 = select i1 %83, i64 %1, i64 0
  %85 = add i64 %71, %84
  %86 = icmp slt i64 %85, 0
  br i1 %86, label %87, label %88, !prof !0

87:                                               ; preds = %81
  br label %88

88:                                               ; preds = %87, %81
  %89 = phi i64 [ 0, %87 ], [ %85, %81 ]
  %90 = icmp slt i64 %85, %1
  br i1 %90, label %92, label %91, !prof !1

91:                                               ; preds = %88
  br label %92

92:                                               ; preds = %91, %88
  %93 = phi i64 [ %1, %91 ], [ %89, %88 ]
  %94 = sub i64 %93, %82
  %95 = call i64 @llvm.smax.i64(i64 %94, i64 0)
  %96 = getelementptr float, ptr %0, i64 %82
  %97 = trunc i64 %39 to i32
  %98 = add i32 %2, %97
  %99 = mul i32 %98, -1640531527
  %100 = add i32 %99, %7
  br label %42

101:                                              ; preds = %42
  %102 = add nsw i64 %44, -1
  %103 = add i64 %43, 1
  %104 = xor i32 %45, %8
  %105 = lshr i32 %104, 16
  %106 = xor i32 %104, %105
  %107 = mul i32 %106, 2146121005
  %108 = lshr i32 %107, 15
  %109 = xor i32 %107, %108
  %110 = mul i32 %109, -2073254261
  %111 = lshr i32 %110, 16
  %112 = xor i32 %110, %111
  %113 = and i32 %24, %112
  %114 = add i32 %29, %113
  %115 = icmp slt i64 %43, 0
  %116 = select i1 %115, i64 %95, i64 0
  %117 = getelementptr float, ptr %96, i64 %43
  %118 = getelementptr float, ptr %117, i64 %116
  %119 = load float, ptr %118, align 4
  %120 = fsub float %119, %3
  %121 = fmul float %120, %4
  %122 = fmul float %121, %18
  %123 = fcmp ogt float %122, 0.000000e+00
  %124 = select i1 %123, float %122, float 0.000000e+00
  %125 = fcmp olt float %124, %33
  %126 = select i1 %125, float %124, float %33
  %127 = fptosi float %126 to i32
  %128 = add i32 %114, %127
  %129 = lshr i32 %128, 15
  %130 = trunc i32 %129 to i16
  %131 = lshr i64 %43, 53
  %132 = and i64 %131, 1024
  %133 = getelementptr i16, ptr %11, i64 %43
  %134 = getelementptr i16, ptr %133, i64 %132
  store i16 %130, ptr %134, align 2
  %135 = add i32 %45, -1640531527
  br label %42

136:                                              ; preds = %52
  %137 = add nsw i64 %54, -1
  %138 = add i64 %53, 1
  %139 = lshr i64 %53, 53
  %140 = and i64 %139, 1024
  %141 = getelementptr i16, ptr %11, i64 %53
  %142 = getelementptr i16, ptr %141, i64 %140
  store i16 0, ptr %142, align 2
  br label %52

143:                                              ; preds = %56
  br label %144

144:                                              ; preds = %143, %56
  %145 = phi i64 [ 0, %143 ], [ %65, %56 ]
  %146 = icmp slt i64 %65, %15
  br i1 %146, label %148, label %147, !prof !1

147:                                              ; preds = %144
  br label %148

148:                                              ; preds = %147, %144
  %149 = phi i64 [ %15, %147 ], [ %145, %144 ]
  %150 = icmp slt i64 %60, 0
  %151 = select i1 %150, i64 %15, i64 0
  %152 = add nsw i64 %60, %151
  %153 = icmp slt i64 %152, 0
  br i1 %153, label %154, label %155, !prof !0

154:                                              ; preds = %148
  br label %155

155:                                              ; preds = %154, %148
  %156 = phi i64 [ 0, %154 ], [ %152, %148 ]
  %157 = icmp slt i64 %152, %15
  br i1 %157, label %159, label %158, !prof !1

158:                                              ; preds = %155
  br label %159

159:                                              ; preds = %158, %155
  %160 = phi i64 [ %15, %158 ], [ %156, %155 ]
  %161 = sub nsw i64 %160, %149
  %162 = call i64 @llvm.smax.i64(i64 %161, i64 0)
  %163 = getelementptr i8, ptr %9, i64 %149
  %164 = lshr exact i64 %49, 2
  %165 = icmp samesign ugt i64 %49, 1020
  br i1 %165, label %232, label %233, !prof !0

166:                                              ; preds = %233, %180
  %167 = phi i64 [ 0, %233 ], [ %182, %180 ]
  %168 = phi i64 [ %234, %233 ], [ %181, %180 ]
  %169 = icmp sgt i64 %168, 0
  br i1 %169, label %180, label %170

170:                                              ; preds = %166
  %171 = lshr i64 %234, 1
  br label %172

172:                                              ; preds = %170, %199
  %173 = phi i64 [ 0, %170 ], [ %201, %199 ]
  %174 = phi i64 [ %171, %170 ], [ %200, %199 ]
  %175 = icmp sgt i64 %174, 0
  br i1 %175, label %199, label %176

176:                                              ; preds = %172, %220
  %177 = phi i64 [ %222, %220 ], [ 0, %172 ]
  %178 = phi i64 [ %221, %220 ], [ %162, %172 ]
  %179 = icmp sgt i64 %178, 0
  br i1 %179, label %220, label %38

180:                                              ; preds = %166
  %181 = add nsw i64 %168, -1
  %182 = add i64 %167, 1
  %183 = getelementptr i64, ptr %11, i64 %167
  %184 = load i64, ptr %183, align 8
  %185 = sub i64 16, %5
  %186 = lshr i64 %184, %185
  %187 = and i64 %186, %243
  %188 = lshr i64 %184, %237
  %189 = shl i64 %243, %5
  %190 = and i64 %188, %189
  %191 = or i64 %187, %190
  %192 = and i64 %191, %240
  %193 = lshr i64 %191, %237
  %194 = shl i64 %240, %5
  %195 = shl i64 %194, %5
  %196 = and i64 %193, %195
  %197 = or i64 %192, %196
  %198 = getelementptr i64, ptr %11, i64 %167
  store i64 %197, ptr %198, align 8
  br label %166

199:                                              ; preds = %172
  %200 = add nsw i64 %174, -1
  %201 = add i64 %173, 1
  %202 = shl i64 %173, 4
  %203 = getelementptr i8, ptr %11, i64 %202
  %204 = load i64, ptr %203, align 8
  %205 = shl i64 %173, 4
  %206 = getelementptr i8, ptr %11, i64 %205
  %207 = getelementptr i8, ptr %206, i64 8
  %208 = load i64, ptr %207, align 8
  %209 = mul i64 %173, %5
  %210 = shl i64 %208, 1
  %211 = add i64 %235, -1
  %212 = shl i64 %210, %211
  %213 = or i64 %204, %212
  %214 = getelementptr i8, ptr %12, i64 %209
  store i64 %213, ptr %214, align 1
  %215 = mul i64 %173, %5
  %216 = sub i64 64, %235
  %217 = lshr i64 %208, %216
  %218 = getelementptr i8, ptr %12, i64 %215
  %219 = getelementptr i8, ptr %218, i64 8
  store i64 %217, ptr %219, align 1
  br label %172

220:                                              ; preds = %176
  %221 = add nsw i64 %178, -1
  %222 = add i64 %177, 1
  %223 = icmp slt i64 %177, 0
  %224 = add i64 %177, 2064
  %225 = select i1 %223, i64 %224, i64 %177
  %226 = getelementptr i8, ptr %12, i64 %225
  %227 = load i8, ptr %226, align 1
  %228 = icmp slt i64 %177, 0
  %229 = select i1 %228, i64 %162, i64 0
  %230 = getelementptr i8, ptr %163, i64 %177
  %231 = getelementptr i8, ptr %230, i64 %229
  store i8 %227, ptr %231, align 1
  br label %176

232:                                              ; preds = %159
  br label %233

233:                                              ; preds = %232, %159
  %234 = phi i64 [ 256, %232 ], [ %164, %159 ]
  %235 = shl i64 %5, 2
  %236 = shl i64 %5, 1
  %237 = sub i64 32, %236
  %238 = shl i64 %5, 1
  %239 = sub i64 64, %238
  %240 = lshr i64 -1, %239
  %241 = sub i64 64, %5
  %242 = lshr i64 -1, %241
  %243 = mul i64 %242, 4294967297
  br label %166
}

define void @repack(ptr %0, i64 %1, i64 %2, i64 %3, ptr %4) {
  %6 = alloca [4096 x i16], align 64
  %7 = alloca [8208 x i8], align 64
  call void @llvm.lifetime.start.p0(ptr nonnull %6)
  call void @llvm.lifetime.start.p0(ptr nonnull %7)
  %8 = mul nsw i64 %3, %1
  %9 = add nsw i64 %8, 7
  %10 = ashr i64 %9, 3
  %11 = mul nsw i64 %3, %2
  %12 = add nsw i64 %11, 7
  %13 = ashr i64 %12, 3
  %14 = add nuw i64 %3, 4095
  %15 = lshr i64 %14, 12
  %16 = icmp sgt i64 %3, 0
  %17 = select i1 %16, i64 %15, i64 0
  br label %18

18:                                               ; preds = %242, %5
  %19 = phi i64 [ 0, %5 ], [ %24, %242 ]
  %20 = phi i64 [ %17, %5 ], [ %25, %242 ]
  %21 = icmp sgt i64 %20, 0
  %22 = add nsw i64 %20, -1
  %23 = add i64 %19, 4096
  %24 = select i1 %21, i64 %23, i64 %19
  %25 = select i1 %21, i64 %22, i64 %20
  %26 = select i1 %21, i64 %19, i64 0
  br i1 %21, label %27, label %66

27:                                               ; preds = %18
  %28 = add nsw i64 %26, 4096
  %29 = icmp slt i64 %28, %3
  %30 = add nsw i64 %26, 4096
  %31 = select i1 %29, i64 %30, i64 %3
  %32 = sub nsw i64 %31, %26
  %33 = add nsw i64 %32, 7
  %34 = and i64 %33, -8
  %35 = mul nsw i64 %31, %1
  %36 = add nsw i64 %35, 7
  %37 = ashr i64 %36, 3
  %38 = mul nsw i64 %26, %1
  %39 = ashr i64 %38, 3
  %40 = icmp slt i64 %39, 0
  %41 = select i1 %40, i64 %10, i64 0
  %42 = add nsw i64 %39, %41
  %43 = icmp slt i64 %42, 0
  br i1 %43, label %67, label %68, !prof !0

44:                                               ; preds = %119, %181
  %45 = phi i64 [ 0, %119 ], [ %183, %181 ]
  %46 = phi i64 [ %121, %119 ], [ %182, %181 ]
  %47 = icmp sgt i64 %46, 0
  br i1 %47, label %181, label %48

48:                                               ; preds = %44
  %49 = sub nsw i64 %31, %26
  %50 = sub i64 %34, %49
  %51 = call i64 @llvm.smax.i64(i64 %50, i64 0)
  br label %52

52:                                               ; preds = %48, %198
  %53 = phi i64 [ %49, %48 ], [ %200, %198 ]
  %54 = phi i64 [ %51, %48 ], [ %199, %198 ]
  %55 = icmp sgt i64 %54, 0
  br i1 %55, label %198, label %56

56:                                               ; preds = %52
  %57 = mul nsw i64 %31, %2
  %58 = add nsw i64 %57, 7
  %59 = ashr i64 %58, 3
  %60 = mul nsw i64 %26, %2
  %61 = ashr i64 %60, 3
  %62 = icmp slt i64 %61, 0
  %63 = select i1 %62, i64 %13, i64 0
  %64 = add nsw i64 %61, %63
  %65 = icmp slt i64 %64, 0
  br i1 %65, label %205, label %206, !prof !0

66:                                               ; preds = %18
  call void @llvm.lifetime.end.p0(ptr nonnull %6)
  call void @llvm.lifetime.end.p0(ptr nonnull %7)
  ret void

67:                                               ; preds = %27
  br label %68

68:                                               ; preds = %67, %27
  %69 = phi i64 [ 0, %67 ], [ %42, %27 ]
  %70 = icmp slt i64 %42, %10
  br i1 %70, label %72, label %71, !prof !1

71:                                               ; preds = %68
  br label %72

72:                                               ; preds = %71, %68
  %73 = phi i64 [ %10, %71 ], [ %69, %68 ]
  %74 = icmp slt i64 %37, 0
  %75 = select i1 %74, i64 %10, i64 0
  %76 = add nsw i64 %37, %75
  %77 = icmp slt i64 %76, 0
  br i1 %77, label %78, label %79, !prof !0

78:                                               ; preds = %72
  br label %79

79:                                               ; preds = %78, %72
  %80 = phi i64 [ 0, %78 ], [ %76, %72 ]
  %81 = icmp slt i64 %76, %10
  br i1 %81, label %83, label %82, !prof !1

82:                                               ; preds = %79
  br label %83

83:                                               ; preds = %82, %79
  %84 = phi i64 [ %10, %82 ], [ %80, %79 ]
  %85 = sub nsw i64 %84, %73
  %86 = call i64 @llvm.smax.i64(i64 %85, i64 0)
  %87 = getelementptr i8, ptr %0, i64 %73
  %88 = ashr exact i64 %34, 2
  %89 = lshr i64 %88, 53
  %90 = and i64 %89, 1024
  %91 = add nsw i64 %88, %90
  %92 = icmp slt i64 %91, 0
  br i1 %92, label %174, label %175, !prof !0

93:                                               ; preds = %179, %122
  %94 = phi i64 [ 0, %179 ], [ %124, %122 ]
  %95 = phi i64 [ %86, %179 ], [ %123, %122 ]
  %96 = icmp sgt i64 %95, 0
  br i1 %96, label %122, label %97

97:                                               ; preds = %93
  %98 = shl i64 %1, 2
  %99 = shl i64 %1, 1
  %100 = sub i64 32, %99
  %101 = shl i64 %1, 1
  %102 = sub i64 64, %101
  %103 = lshr i64 -1, %102
  %104 = sub i64 64, %1
  %105 = lshr i64 -1, %104
  %106 = mul i64 %105, 4294967297
  %107 = sub i64 64, %98
  %108 = lshr i64 -1, %107
  %109 = ashr i64 %180, 1
  %110 = call i64 @llvm.smax.i64(i64 %109, i64 0)
  br label %111

111:                                              ; preds = %97, %134
  %112 = phi i64 [ 0, %97 ], [ %136, %134 ]
  %113 = phi i64 [ %110, %97 ], [ %135, %134 ]
  %114 = icmp sgt i64 %113, 0
  br i1 %114, label %134, label %115

115:                                              ; preds = %111, %157
  %116 = phi i64 [ %159, %157 ], [ 0, %111 ]
  %117 = phi i64 [ %158, %157 ], [ %180, %111 ]
  %118 = icmp sgt i64 %117, 0
  br i1 %118, label %157, label %119

119:                                              ; preds = %115
  %120 = icmp sgt i64 %32, 0
  %121 = select i1 %120, i64 %34, i64 0
  br label %44

122:                                              ; preds = %93
  %123 = add nsw i64 %95, -1
  %124 = add i64 %94, 1
  %125 = icmp slt i64 %94, 0
  %126 = select i1 %125, i64 %86, i64 0
  %127 = getelementptr i8, ptr %87, i64 %94
  %128 = getelementptr i8, ptr %127, i64 %126
  %129 = load i8, ptr %128, align 1
  %130 = icmp slt i64 %94, 0
  %131 = add i64 %94, 8208
  %132 = select i1 %130, i64 %131, i64 %94
  %133 = getelementptr i8, ptr %7, i64 %132
  store i8 %129, ptr %133, align 1
  br label %93

134:                                              ; preds = %111
  %135 = add nsw i64 %113, -1
  %136 = add i64 %112, 1
  %137 = mul i64 %112, %1
  %138 = getelementptr i8, ptr %7, i64 %137
  %139 = load i64, ptr %138, align 1
  %140 = mul i64 %112, %1
  %141 = getelementptr i8, ptr %7, i64 %140
  %142 = getelementptr i8, ptr %141, i64 8
  %143 = load i64, ptr %142, align 1
  %144 = and i64 %139, %108
  %145 = shl i64 %112, 4
  %146 = getelementptr i8, ptr %6, i64 %145
  store i64 %144, ptr %146, align 8
  %147 = lshr i64 %139, 1
  %148 = add i64 %98, -1
  %149 = lshr i64 %147, %148
  %150 = sub i64 64, %98
  %151 = shl i64 %143, %150
  %152 = or i64 %149, %151
  %153 = and i64 %152, %108
  %154 = shl i64 %112, 4
  %155 = getelementptr i8, ptr %6, i64 %154
  %156 = getelementptr i8, ptr %155, i64 8
  store i64 %153, ptr %156, align 8
  br label %111

157:                                              ; preds = %115
  %158 = add nsw i64 %117, -1
  %159 = add i64 %116, 1
  %160 = getelementptr i64, ptr %6, i64 %116
  %161 = load i64, ptr %160, align 8
  %162 = and i64 %161, %103
  %163 = shl i64 %161, %100
  %164 = shl i64 %103, 32
  %165 = and i64 %163, %164
  %166 = or i64 %162, %165
  %167 = and i64 %166, %106
  %168 = sub i64 16, %1
  %169 = shl i64 %166, %168
  %170 = mul i64 %105, 281474976776192
  %171 = and i64 %169, %170
  %172 = or i64 %167, %171
  %173 = getelementptr i64, ptr %6, i64 %116
  store i64 %172, ptr %173, align 8
  br label %115

174:                                              ; preds = %83
  br label %175

175:                                              ; preds = %174, %83
  %176 = phi i64 [ 0, %174 ], [ %91, %83 ]
  %177 = icmp sgt i64 %91, 1023
  br i1 %177, label %178, label %179, !prof !0

178:                                              ; preds = %175
  br label %179

179:                                              ; preds = %178, %175
  %180 = phi i64 [ 1024, %178 ], [ %176, %175 ]
  br label %93

181:                                              ; preds = %44
  %182 = add nsw i64 %46, -1
  %183 = add i64 %45, 1
  %184 = lshr i64 %45, 51
  %185 = and i64 %184, 4096
  %186 = getelementptr i16, ptr %6, i64 %45
  %187 = getelementptr i16, ptr %186, i64 %185
  %188 = load i16, ptr %187, align 2
  %189 = sub i64 16, %2
  %190 = and i64 %189, 65535
  %191 = zext i16 %188 to i64
  %192 = shl i64 %191, %190
  %193 = trunc i64 %192 to i16
  %194 = lshr i64 %45, 51
  %195 = and i64 %194, 4096
  %196 = getelementptr i16, ptr %6, i64 %45
  %197 = getelementptr i16, ptr %196, i64 %195
  store i16 %193, ptr %197, align 2
  br label %44

198:                                              ; preds = %52
  %199 = add nsw i64 %54, -1
  %200 = add i64 %53, 1
  %201 = lshr i64 %53, 51
  %202 = and i64 %201, 4096
  %203 = getelementptr i16, ptr %6, i64 %53
  %204 = getelementptr i16, ptr %203, i64 %202
  store i16 0, ptr %204, align 2
  br label %52

205:                                              ; preds = %56
  br label %206

206:                                              ; preds = %205, %56
  %207 = phi i64 [ 0, %205 ], [ %64, %56 ]
  %208 = icmp slt i64 %64, %13
  br i1 %208, label %210, label %209, !prof !1

209:                                              ; preds = %206
  br label %210

210:                                              ; preds = %209, %206
  %211 = phi i64 [ %13, %209 ], [ %207, %206 ]
  %212 = icmp slt i64 %59, 0
  %213 = select i1 %212, i64 %13, i64 0
  %214 = add nsw i64 %59, %213
  %215 = icmp slt i64 %214, 0
  br i1 %215, label %216, label %217, !prof !0

216:                                              ; preds = %210
  br label %217

217:                                              ; preds = %216, %210
  %218 = phi i64 [ 0, %216 ], [ %214, %210 ]
  %219 = icmp slt i64 %214, %13
  br i1 %219, label %221, label %220, !prof !1

220:                                              ; preds = %217
  br label %221

221:                                              ; preds = %220, %217
  %222 = phi i64 [ %13, %220 ], [ %218, %217 ]
  %223 = sub nsw i64 %222, %211
  %224 = call i64 @llvm.smax.i64(i64 %223, i64 0)
  %225 = getelementptr i8, ptr %4, i64 %211
  %226 = ashr exact i64 %34, 2
  %227 = lshr i64 %226, 53
  %228 = and i64 %227, 1024
  %229 = add nsw i64 %226, %228
  %230 = icmp slt i64 %229, 0
  br i1 %230, label %298, label %299, !prof !0

231:                                              ; preds = %303, %246
  %232 = phi i64 [ 0, %303 ], [ %248, %246 ]
  %233 = phi i64 [ %304, %303 ], [ %247, %246 ]
  %234 = icmp sgt i64 %233, 0
  br i1 %234, label %246, label %235

235:                                              ; preds = %231
  %236 = ashr i64 %304, 1
  %237 = call i64 @llvm.smax.i64(i64 %236, i64 0)
  br label %238

238:                                              ; preds = %235, %265
  %239 = phi i64 [ 0, %235 ], [ %267, %265 ]
  %240 = phi i64 [ %237, %235 ], [ %266, %265 ]
  %241 = icmp sgt i64 %240, 0
  br i1 %241, label %265, label %242

242:                                              ; preds = %238, %286
  %243 = phi i64 [ %288, %286 ], [ 0, %238 ]
  %244 = phi i64 [ %287, %286 ], [ %224, %238 ]
  %245 = icmp sgt i64 %244, 0
  br i1 %245, label %286, label %18

246:                                              ; preds = %231
  %247 = add nsw i64 %233, -1
  %248 = add i64 %232, 1
  %249 = getelementptr i64, ptr %6, i64 %232
  %250 = load i64, ptr %249, align 8
  %251 = sub i64 16, %2
  %252 = lshr i64 %250, %251
  %253 = and i64 %252, %313
  %254 = lshr i64 %250, %307
  %255 = shl i64 %313, %2
  %256 = and i64 %254, %255
  %257 = or i64 %253, %256
  %258 = and i64 %257, %310
  %259 = lshr i64 %257, %307
  %260 = shl i64 %310, %2
  %261 = shl i64 %260, %2
  %262 = and i64 %259, %261
  %263 = or i64 %258, %262
  %264 = getelementptr i64, ptr %6, i64 %232
  store i64 %263, ptr %264, align 8
  br label %231

265:                                              ; preds = %238
  %266 = add nsw i64 %240, -1
  %267 = add i64 %239, 1
  %268 = shl i64 %239, 4
  %269 = getelementptr i8, ptr %6, i64 %268
  %270 = load i64, ptr %269, align 8
  %271 = shl i64 %239, 4
  %272 = getelementptr i8, ptr %6, i64 %271
  %273 = getelementptr i8, ptr %272, i64 8
  %274 = load i64, ptr %273, align 8
  %275 = mul i64 %239, %2
  %276 = shl i64 %274, 1
  %277 = add i64 %305, -1
  %278 = shl i64 %276, %277
  %279 = or i64 %270, %278
  %280 = getelementptr i8, ptr %7, i64 %275
  store i64 %279, ptr %280, align 1
  %281 = mul i64 %239, %2
  %282 = sub i64 64, %305
  %283 = lshr i64 %274, %282
  %284 = getelementptr i8, ptr %7, i64 %281
  %285 = getelementptr i8, ptr %284, i64 8
  store i64 %283, ptr %285, align 1
  br label %238

286:                                              ; preds = %242
  %287 = add nsw i64 %244, -1
  %288 = add i64 %243, 1
  %289 = icmp slt i64 %243, 0
  %290 = add i64 %243, 8208
  %291 = select i1 %289, i64 %290, i64 %243
  %292 = getelementptr i8, ptr %7, i64 %291
  %293 = load i8, ptr %292, align 1
  %294 = icmp slt i64 %243, 0
  %295 = select i1 %294, i64 %224, i64 0
  %296 = getelementptr i8, ptr %225, i64 %243
  %297 = getelementptr i8, ptr %296, i64 %295
  store i8 %293, ptr %297, align 1
  br label %242

298:                                              ; preds = %221
  br label %299

299:                                              ; preds = %298, %221
  %300 = phi i64 [ 0, %298 ], [ %229, %221 ]
  %301 = icmp sgt i64 %229, 1023
  br i1 %301, label %302, label %303, !prof !0

302:                                              ; preds = %299
  br label %303

303:                                              ; preds = %302, %299
  %304 = phi i64 [ 1024, %302 ], [ %300, %299 ]
  %305 = shl i64 %2, 2
  %306 = shl i64 %2, 1
  %307 = sub i64 32, %306
  %308 = shl i64 %2, 1
  %309 = sub i64 64, %308
  %310 = lshr i64 -1, %309
  %311 = sub i64 64, %2
  %312 = lshr i64 -1, %311
  %313 = mul i64 %312, 4294967297
  br label %231
}

; Function Attrs: nocallback nofree nosync nounwind speculatable willreturn memory(inaccessiblemem: readwrite)
declare ptr @llvm.launder.invariant.group.p0(ptr) #1

define void @unpack_dequantize(ptr %0, i64 %1, double %2, double %3, ptr %4, i64 %5) {
  %7 = alloca [4096 x i16], align 64
  %8 = alloca [8208 x i8], align 64
  %9 = alloca [4096 x i64], align 64
  %10 = alloca [64 x i8], align 64
  %11 = alloca [64 x float], align 64
  %12 = mul nsw i64 %5, %1
  %13 = add nsw i64 %12, 7
  %14 = ashr i64 %13, 3
  %15 = icmp slt i64 %1, 7
  br i1 %15, label %16, label %207

16:                                               ; preds = %6
  call void @llvm.lifetime.start.p0(ptr nonnull %9)
  call void @llvm.lifetime.start.p0(ptr nonnull %10)
  call void @llvm.lifetime.start.p0(ptr nonnull %11)
  %17 = shl nuw i64 1, %1
  %18 = shl i64 %17, %1
  %19 = call i64 @llvm.smax.i64(i64 %18, i64 0)
  br label %20

20:                                               ; preds = %60, %16
  %21 = phi i64 [ 0, %16 ], [ %62, %60 ]
  %22 = phi i64 [ %19, %16 ], [ %61, %60 ]
  %23 = icmp sgt i64 %22, 0
  br i1 %23, label %60, label %24

24:                                               ; preds = %20
  %25 = ashr i64 %5, 3
  %26 = mul nsw i64 %5, %1
  %27 = add nsw i64 %26, 7
  %28 = ashr i64 %27, 3
  %29 = add nsw i64 %28, -8
  %30 = icmp eq i64 %1, 0
  br i1 %30, label %35, label %31, !prof !0

31:                                               ; preds = %24
  %32 = icmp ne i64 %29, -9223372036854775808
  %33 = icmp ne i64 %1, -1
  %34 = or i1 %32, %33
  br i1 %34, label %46, label %35, !prof !1

35:                                               ; preds = %31, %46, %24
  %36 = phi i64 [ %1, %24 ], [ %54, %46 ], [ 0, %31 ]
  %37 = add nsw i64 %36, 1
  %38 = call i64 @llvm.smin.i64(i64 %37, i64 %25)
  %39 = call i64 @llvm.smax.i64(i64 %38, i64 0)
  %40 = shl i64 %39, 2
  %41 = shl i64 %1, 1
  %42 = shl nsw i64 -1, %41
  %43 = xor i64 %42, -1
  %44 = ashr exact i64 %40, 2
  %45 = call i64 @llvm.smax.i64(i64 %44, i64 0)
  br label %88

46:                                               ; preds = %31
  %47 = sdiv i64 %29, %1
  %48 = srem i64 %29, %1
  %49 = xor i64 %1, %48
  %50 = icmp slt i64 %49, 0
  %51 = icmp ne i64 %48, 0
  %52 = and i1 %51, %50
  %53 = sext i1 %52 to i64
  %54 = add i64 %47, %53
  br label %35

55:                                               ; preds = %159, %194
  %56 = phi i64 [ 0, %159 ], [ %196, %194 ]
  %57 = phi i64 [ %160, %159 ], [ %195, %194 ]
  %58 = icmp sgt i64 %57, 0
  br i1 %58, label %194, label %59

59:                                               ; preds = %55
  call void @llvm.lifetime.end.p0(ptr nonnull %9)
  call void @llvm.lifetime.end.p0(ptr nonnull %10)
  call void @llvm.lifetime.end.p0(ptr nonnull %11)
  br label %381

60:                                               ; preds = %20
  %61 = add nsw i64 %22, -1
  %62 = add i64 %21, 1
  %63 = shl nsw i64 -1, %1
  %64 = xor i64 %63, -1
  %65 = and i64 %21, %64
  %66 = trunc i64 %65 to i32
  %67 = sitofp i32 %66 to double
  %68 = fmul double %3, %67
  %69 = fadd double %2, %68
  %70 = fptrunc double %69 to float
  %71 = lshr i64 %21, 50
  %72 = and i64 %71, 8192
  %73 = shl i64 %21, 3
  %74 = getelementptr i8, ptr %9, i64 %73
  %75 = getelementptr float, ptr %74, i64 %72
  store float %70, ptr %75, align 4
  %76 = ashr i64 %21, %1
  %77 = trunc i64 %76 to i32
  %78 = sitofp i32 %77 to double
  %79 = fmul double %3, %78
  %80 = fadd double %2, %79
  %81 = fptrunc double %80 to float
  %82 = shl nsw i64 %21, 1
  %83 = or disjoint i64 %82, 1
  %84 = icmp slt i64 %21, 0
  %85 = add i64 %82, 8193
  %86 = select i1 %84, i64 %85, i64 %83
  %87 = getelementptr float, ptr %9, i64 %86
  store float %81, ptr %87, align 4
  br label %20

88:                                               ; preds = %35, %96
  %89 = phi i64 [ 0, %35 ], [ %98, %96 ]
  %90 = phi i64 [ %45, %35 ], [ %97, %96 ]
  %91 = icmp sgt i64 %90, 0
  br i1 %91, label %96, label %92

92:                                               ; preds = %88
  %93 = mul nsw i64 %39, %1
  %94 = sub i64 %14, %93
  %95 = call i64 @llvm.smax.i64(i64 %94, i64 0)
  br label %129

96:                                               ; preds = %88
  %97 = add nsw i64 %90, -1
  %98 = add i64 %89, 1
  %99 = call ptr @llvm.launder.invariant.group.p0(ptr %0)
  %100 = mul i64 %89, %1
  %101 = getelementptr i8, ptr %99, i64 %100
  %102 = load i64, ptr %101, align 1
  %103 = shl i64 %89, 2
  %104 = and i64 %102, %43
  %105 = getelementptr i64, ptr %9, i64 %104
  %106 = load i64, ptr %105, align 8
  %107 = getelementptr i64, ptr %4, i64 %103
  store i64 %106, ptr %107, align 8
  %108 = lshr i64 %102, %41
  %109 = and i64 %108, %43
  %110 = getelementptr i64, ptr %9, i64 %109
  %111 = load i64, ptr %110, align 8
  %112 = getelementptr i64, ptr %4, i64 %103
  %113 = getelementptr i8, ptr %112, i64 8
  store i64 %111, ptr %113, align 8
  %114 = lshr i64 %102, %41
  %115 = lshr i64 %114, %41
  %116 = and i64 %115, %43
  %117 = getelementptr i64, ptr %9, i64 %116
  %118 = load i64, ptr %117, align 8
  %119 = getelementptr i64, ptr %4, i64 %103
  %120 = getelementptr i8, ptr %119, i64 16
  store i64 %118, ptr %120, align 8
  %121 = lshr i64 %102, %41
  %122 = lshr i64 %121, %41
  %123 = lshr i64 %122, %41
  %124 = and i64 %123, %43
  %125 = getelementptr i64, ptr %9, i64 %124
  %126 = load i64, ptr %125, align 8
  %127 = getelementptr i64, ptr %4, i64 %103
  %128 = getelementptr i8, ptr %127, i64 24
  store i64 %126, ptr %128, align 8
  br label %88

129:                                              ; preds = %92, %142
  %130 = phi i64 [ %93, %92 ], [ %144, %142 ]
  %131 = phi i64 [ %95, %92 ], [ %143, %142 ]
  %132 = icmp sgt i64 %131, 0
  br i1 %132, label %142, label %133

133:                                              ; preds = %129
  %134 = shl nsw i64 %39, 3
  %135 = sub nsw i64 %5, %134
  %136 = add nsw i64 %135, 7
  %137 = shl i64 %1, 1
  %138 = shl nsw i64 -1, %137
  %139 = xor i64 %138, -1
  %140 = ashr i64 %136, 3
  %141 = call i64 @llvm.smax.i64(i64 %140, i64 0)
  br label %155

142:                                              ; preds = %129
  %143 = add nsw i64 %131, -1
  %144 = add i64 %130, 1
  %145 = icmp slt i64 %130, 0
  %146 = select i1 %145, i64 %14, i64 0
  %147 = getelementptr i8, ptr %0, i64 %130
  %148 = getelementptr i8, ptr %147, i64 %146
  %149 = load i8, ptr %148, align 1
  %150 = sub nsw i64 %130, %93
  %151 = lshr i64 %150, 57
  %152 = and i64 %151, 64
  %153 = getelementptr i8, ptr %10, i64 %150
  %154 = getelementptr i8, ptr %153, i64 %152
  store i8 %149, ptr %154, align 1
  br label %129

155:                                              ; preds = %133, %161
  %156 = phi i64 [ 0, %133 ], [ %163, %161 ]
  %157 = phi i64 [ %141, %133 ], [ %162, %161 ]
  %158 = icmp sgt i64 %157, 0
  br i1 %158, label %161, label %159

159:                                              ; preds = %155
  %160 = call i64 @llvm.smax.i64(i64 %135, i64 0)
  br label %55

161:                                              ; preds = %155
  %162 = add nsw i64 %157, -1
  %163 = add i64 %156, 1
  %164 = call ptr @llvm.launder.invariant.group.p0(ptr nonnull %10)
  %165 = mul i64 %156, %1
  %166 = getelementptr i8, ptr %164, i64 %165
  %167 = load i64, ptr %166, align 1
  %168 = shl i64 %156, 2
  %169 = and i64 %167, %139
  %170 = getelementptr i64, ptr %9, i64 %169
  %171 = load i64, ptr %170, align 8
  %172 = getelementptr i64, ptr %11, i64 %168
  store i64 %171, ptr %172, align 8
  %173 = lshr i64 %167, %137
  %174 = and i64 %173, %139
  %175 = getelementptr i64, ptr %9, i64 %174
  %176 = load i64, ptr %175, align 8
  %177 = getelementptr i64, ptr %11, i64 %168
  %178 = getelementptr i8, ptr %177, i64 8
  store i64 %176, ptr %178, align 8
  %179 = lshr i64 %167, %137
  %180 = lshr i64 %179, %137
  %181 = and i64 %180, %139
  %182 = getelementptr i64, ptr %9, i64 %181
  %183 = load i64, ptr %182, align 8
  %184 = getelementptr i64, ptr %11, i64 %168
  %185 = getelementptr i8, ptr %184, i64 16
  store i64 %183, ptr %185, align 8
  %186 = lshr i64 %167, %137
  %187 = lshr i64 %186, %137
  %188 = lshr i64 %187, %137
  %189 = and i64 %188, %139
  %190 = getelementptr i64, ptr %9, i64 %189
  %191 = load i64, ptr %190, align 8
  %192 = getelementptr i64, ptr %11, i64 %168
  %193 = getelementptr i8, ptr %192, i64 24
  store i64 %191, ptr %193, align 8
  br label %155

194:                                              ; preds = %55
  %195 = add nsw i64 %57, -1
  %196 = add i64 %56, 1
  %197 = lshr i64 %56, 57
  %198 = and i64 %197, 64
  %199 = getelementptr float, ptr %11, i64 %56
  %200 = getelementptr float, ptr %199, i64 %198
  %201 = load float, ptr %200, align 4
  %202 = add nsw i64 %134, %56
  %203 = icmp slt i64 %202, 0
  %204 = select i1 %203, i64 %5, i64 0
  %205 = getelementptr float, ptr %4, i64 %202
  %206 = getelementptr float, ptr %205, i64 %204
  store float %201, ptr %206, align 4
  br label %55

207:                                              ; preds = %6
  call void @llvm.lifetime.start.p0(ptr nonnull %7)
  call void @llvm.lifetime.start.p0(ptr nonnull %8)
  %208 = add nuw i64 %5, 4095
  %209 = lshr i64 %208, 12
  %210 = icmp sgt i64 %5, 0
  %211 = select i1 %210, i64 %209, i64 0
  br label %212

212:                                              ; preds = %216, %207
  %213 = phi i64 [ 0, %207 ], [ %223, %216 ]
  %214 = phi i64 [ %211, %207 ], [ %222, %216 ]
  %215 = icmp sgt i64 %214, 0
  br i1 %215, label %221, label %220

216:                                              ; preds = %306, %365
  %217 = phi i64 [ %367, %365 ], [ 0, %306 ]
  %218 = phi i64 [ %366, %365 ], [ %248, %306 ]
  %219 = icmp sgt i64 %218, 0
  br i1 %219, label %365, label %212

220:                                              ; preds = %212
  call void @llvm.lifetime.end.p0(ptr nonnull %7)
  call void @llvm.lifetime.end.p0(ptr nonnull %8)
  br label %381

221:                                              ; preds = %212
  %222 = add nsw i64 %214, -1
  %223 = add i64 %213, 4096
  %224 = add nsw i64 %213, 4096
  %225 = icmp slt i64 %213, 0
  %226 = select i1 %225, i64 %5, i64 0
  %227 = add i64 %213, %226
  %228 = icmp slt i64 %227, 0
  br i1 %228, label %229, label %230, !prof !0

229:                                              ; preds = %221
  br label %230

230:                                              ; preds = %229, %221
  %231 = phi i64 [ 0, %229 ], [ %227, %221 ]
  %232 = icmp slt i64 %227, %5
  br i1 %232, label %234, label %233, !prof !1

233:                                              ; preds = %230
  br label %234

234:                                              ; preds = %233, %230
  %235 = phi i64 [ %5, %233 ], [ %231, %230 ]
  %236 = icmp slt i64 %213, -4096
  %237 = select i1 %236, i64 %5, i64 0
  %238 = add i64 %224, %237
  %239 = icmp slt i64 %238, 0
  br i1 %239, label %240, label %241, !prof !0

240:                                              ; preds = %234
  br label %241

241:                                              ; preds = %240, %234
  %242 = phi i64 [ 0, %240 ], [ %238, %234 ]
  %243 = icmp slt i64 %238, %5
  br i1 %243, label %245, label %244, !prof !1

244:                                              ; preds = %241
  br label %245

245:                                              ; preds = %244, %241
  %246 = phi i64 [ %5, %244 ], [ %242, %241 ]
  %247 = sub i64 %246, %235
  %248 = call i64 @llvm.smax.i64(i64 %247, i64 0)
  %249 = getelementptr float, ptr %4, i64 %235
  %250 = add nsw i64 %213, %248
  %251 = add nuw nsw i64 %248, 7
  %252 = mul nsw i64 %250, %1
  %253 = add nsw i64 %252, 7
  %254 = ashr i64 %253, 3
  %255 = mul nsw i64 %213, %1
  %256 = ashr exact i64 %255, 3
  %257 = icmp slt i64 %256, 0
  %258 = select i1 %257, i64 %14, i64 0
  %259 = add nsw i64 %256, %258
  %260 = icmp slt i64 %259, 0
  br i1 %260, label %261, label %262, !prof !0

261:                                              ; preds = %245
  br label %262

262:                                              ; preds = %261, %245
  %263 = phi i64 [ 0, %261 ], [ %259, %245 ]
  %264 = icmp slt i64 %259, %14
  br i1 %264, label %266, label %265, !prof !1

265:                                              ; preds = %262
  br label %266

266:                                              ; preds = %265, %262
  %267 = phi i64 [ %14, %265 ], [ %263, %262 ]
  %268 = icmp slt i64 %254, 0
  %269 = select i1 %268, i64 %14, i64 0
  %270 = add nsw i64 %254, %269
  %271 = icmp slt i64 %270, 0
  br i1 %271, label %272, label %273, !prof !0

272:                                              ; preds = %266
  br label %273

273:                                              ; preds = %272, %266
  %274 = phi i64 [ 0, %272 ], [ %270, %266 ]
  %275 = icmp slt i64 %270, %14
  br i1 %275, label %277, label %276, !prof !1

276:                                              ; preds = %273
  br label %277

277:                                              ; preds = %276, %273
  %278 = phi i64 [ %14, %276 ], [ %274, %273 ]
  %279 = sub nsw i64 %278, %267
  %280 = call i64 @llvm.smax.i64(i64 %279, i64 0)
  %281 = getelementptr i8, ptr %0, i64 %267
  %282 = lshr i64 %251, 2
  %283 = and i64 %282, 2305843009213693950
  %284 = icmp sgt i64 %247, 4088
  br i1 %284, label %362, label %363, !prof !0

285:                                              ; preds = %363, %310
  %286 = phi i64 [ 0, %363 ], [ %312, %310 ]
  %287 = phi i64 [ %280, %363 ], [ %311, %310 ]
  %288 = icmp sgt i64 %287, 0
  br i1 %288, label %310, label %289

289:                                              ; preds = %285
  %290 = shl i64 %1, 2
  %291 = shl nuw i64 %1, 1
  %292 = sub i64 32, %291
  %293 = shl nuw i64 %1, 1
  %294 = sub i64 64, %293
  %295 = lshr i64 -1, %294
  %296 = sub nsw i64 64, %1
  %297 = lshr i64 -1, %296
  %298 = mul i64 %297, 4294967297
  %299 = sub i64 64, %290
  %300 = lshr i64 -1, %299
  %301 = lshr exact i64 %364, 1
  br label %302

302:                                              ; preds = %289, %322
  %303 = phi i64 [ 0, %289 ], [ %324, %322 ]
  %304 = phi i64 [ %301, %289 ], [ %323, %322 ]
  %305 = icmp sgt i64 %304, 0
  br i1 %305, label %322, label %306

306:                                              ; preds = %302, %345
  %307 = phi i64 [ %347, %345 ], [ 0, %302 ]
  %308 = phi i64 [ %346, %345 ], [ %364, %302 ]
  %309 = icmp sgt i64 %308, 0
  br i1 %309, label %345, label %216

310:                                              ; preds = %285
  %311 = add nsw i64 %287, -1
  %312 = add i64 %286, 1
  %313 = icmp slt i64 %286, 0
  %314 = select i1 %313, i64 %280, i64 0
  %315 = getelementptr i8, ptr %281, i64 %286
  %316 = getelementptr i8, ptr %315, i64 %314
  %317 = load i8, ptr %316, align 1
  %318 = icmp slt i64 %286, 0
  %319 = add i64 %286, 8208
  %320 = select i1 %318, i64 %319, i64 %286
  %321 = getelementptr i8, ptr %8, i64 %320
  store i8 %317, ptr %321, align 1
  br label %285

322:                                              ; preds = %302
  %323 = add nsw i64 %304, -1
  %324 = add i64 %303, 1
  %325 = mul i64 %303, %1
  %326 = getelementptr i8, ptr %8, i64 %325
  %327 = load i64, ptr %326, align 1
  %328 = mul i64 %303, %1
  %329 = getelementptr i8, ptr %8, i64 %328
  %330 = getelementptr i8, ptr %329, i64 8
  %331 = load i64, ptr %330, align 1
  %332 = and i64 %327, %300
  %333 = shl i64 %303, 4
  %334 = getelementptr i8, ptr %7, i64 %333
  store i64 %332, ptr %334, align 8
  %335 = lshr i64 %327, 1
  %336 = add i64 %290, -1
  %337 = lshr i64 %335, %336
  %338 = sub i64 64, %290
  %339 = shl i64 %331, %338
  %340 = or i64 %337, %339
  %341 = and i64 %340, %300
  %342 = shl i64 %303, 4
  %343 = getelementptr i8, ptr %7, i64 %342
  %344 = getelementptr i8, ptr %343, i64 8
  store i64 %341, ptr %344, align 8
  br label %302

345:                                              ; preds = %306
  %346 = add nsw i64 %308, -1
  %347 = add i64 %307, 1
  %348 = getelementptr i64, ptr %7, i64 %307
  %349 = load i64, ptr %348, align 8
  %350 = and i64 %349, %295
  %351 = shl i64 %349, %292
  %352 = shl i64 %295, 32
  %353 = and i64 %351, %352
  %354 = or i64 %350, %353
  %355 = and i64 %354, %298
  %356 = sub nsw i64 16, %1
  %357 = shl i64 %354, %356
  %358 = mul i64 %297, 281474976776192
  %359 = and i64 %357, %358
  %360 = or i64 %355, %359
  %361 = getelementptr i64, ptr %7, i64 %307
  store i64 %360, ptr %361, align 8
  br label %306

362:                                              ; preds = %277
  br label %363

363:                                              ; preds = %362, %277
  %364 = phi i64 [ 1024, %362 ], [ %283, %277 ]
  br label %285

365:                                              ; preds = %216
  %366 = add nsw i64 %218, -1
  %367 = add i64 %217, 1
  %368 = lshr i64 %217, 51
  %369 = and i64 %368, 4096
  %370 = getelementptr i16, ptr %7, i64 %217
  %371 = getelementptr i16, ptr %370, i64 %369
  %372 = load i16, ptr %371, align 2
  %373 = uitofp i16 %372 to double
  %374 = fmul double %3, %373
  %375 = fadd double %2, %374
  %376 = fptrunc double %375 to float
  %377 = icmp slt i64 %217, 0
  %378 = select i1 %377, i64 %248, i64 0
  %379 = getelementptr float, ptr %249, i64 %217
  %380 = getelementptr float, ptr %379, i64 %378
  store float %376, ptr %380, align 4
  br label %216

381:                                              ; preds = %220, %59
  ret void
}

define void @unpack_accumulate(ptr %0, i64 %1, i64 %2, i64 %3, i64 %4, i64 %5, ptr %6, i64 %7) {
  %9 = alloca [4096 x i16], align 64
  %10 = alloca [8208 x i8], align 64
  %11 = alloca [256 x i64], align 64
  %12 = alloca [64 x i8], align 64
  %13 = alloca [64 x i64], align 64
  %14 = shl nuw i64 1, %4
  %15 = ashr i64 %14, 1
  %16 = icmp slt i64 %5, 0
  %17 = sub nsw i64 1, %2
  %18 = sub i64 0, %3
  %19 = select i1 %16, i64 %17, i64 %2
  %20 = select i1 %16, i64 %18, i64 %3
  %21 = ashr i64 %5, 63
  %22 = xor i64 %15, %21
  %23 = mul nsw i64 %7, %1
  %24 = add nsw i64 %23, 7
  %25 = ashr i64 %24, 3
  %26 = icmp slt i64 %1, 9
  br i1 %26, label %27, label %229

27:                                               ; preds = %8
  call void @llvm.lifetime.start.p0(ptr nonnull %11)
  call void @llvm.lifetime.start.p0(ptr nonnull %12)
  call void @llvm.lifetime.start.p0(ptr nonnull %13)
  %28 = shl nuw i64 1, %1
  br label %29

29:                                               ; preds = %94, %27
  %30 = phi i64 [ 0, %27 ], [ %96, %94 ]
  %31 = phi i64 [ %28, %27 ], [ %95, %94 ]
  %32 = icmp sgt i64 %31, 0
  br i1 %32, label %94, label %33

33:                                               ; preds = %29
  %34 = ashr i64 %7, 3
  %35 = mul nsw i64 %7, %1
  %36 = add nsw i64 %35, 7
  %37 = ashr i64 %36, 3
  %38 = add nsw i64 %37, -8
  %39 = icmp eq i64 %1, 0
  br i1 %39, label %44, label %40, !prof !0

40:                                               ; preds = %33
  %41 = icmp ne i64 %38, -9223372036854775808
  %42 = icmp ne i64 %1, -1
  %43 = or i1 %41, %42
  br i1 %43, label %51, label %44, !prof !1

44:                                               ; preds = %40, %51, %33
  %45 = phi i64 [ %1, %33 ], [ %59, %51 ], [ 0, %40 ]
  %46 = add nsw i64 %45, 1
  %47 = call i64 @llvm.smin.i64(i64 %46, i64 %34)
  %48 = call i64 @llvm.smax.i64(i64 %47, i64 0)
  %49 = shl i64 %48, 3
  %50 = icmp slt i64 %7, 1
  br i1 %50, label %140, label %141, !prof !0

51:                                               ; preds = %40
  %52 = sdiv i64 %38, %1
  %53 = srem i64 %38, %1
  %54 = xor i64 %1, %53
  %55 = icmp slt i64 %54, 0
  %56 = icmp ne i64 %53, 0
  %57 = and i1 %56, %55
  %58 = sext i1 %57 to i64
  %59 = add i64 %52, %58
  br label %44

60:                                               ; preds = %165, %170
  %61 = phi i64 [ 0, %165 ], [ %172, %170 ]
  %62 = phi i64 [ %168, %165 ], [ %171, %170 ]
  %63 = icmp sgt i64 %62, 0
  br i1 %63, label %170, label %64

64:                                               ; preds = %60
  %65 = mul nsw i64 %48, %1
  %66 = sub i64 %25, %65
  %67 = call i64 @llvm.smax.i64(i64 %66, i64 0)
  br label %68

68:                                               ; preds = %64, %76
  %69 = phi i64 [ %65, %64 ], [ %78, %76 ]
  %70 = phi i64 [ %67, %64 ], [ %77, %76 ]
  %71 = icmp sgt i64 %70, 0
  br i1 %71, label %76, label %72

72:                                               ; preds = %68
  %73 = add nuw nsw i64 %168, 7
  %74 = and i64 %73, 9223372036854775800
  %75 = icmp sgt i64 %167, 56
  br i1 %75, label %211, label %212, !prof !0

76:                                               ; preds = %68
  %77 = add nsw i64 %70, -1
  %78 = add i64 %69, 1
  %79 = icmp slt i64 %69, 0
  %80 = select i1 %79, i64 %25, i64 0
  %81 = getelementptr i8, ptr %0, i64 %69
  %82 = getelementptr i8, ptr %81, i64 %80
  %83 = load i8, ptr %82, align 1
  %84 = sub nsw i64 %69, %65
  %85 = lshr i64 %84, 57
  %86 = and i64 %85, 64
  %87 = getelementptr i8, ptr %12, i64 %84
  %88 = getelementptr i8, ptr %87, i64 %86
  store i8 %83, ptr %88, align 1
  br label %68

89:                                               ; preds = %182, %217
  %90 = phi i64 [ %219, %217 ], [ 0, %182 ]
  %91 = phi i64 [ %218, %217 ], [ %168, %182 ]
  %92 = icmp sgt i64 %91, 0
  br i1 %92, label %217, label %93

93:                                               ; preds = %89
  call void @llvm.lifetime.end.p0(ptr nonnull %11)
  call void @llvm.lifetime.end.p0(ptr nonnull %12)
  call void @llvm.lifetime.end.p0(ptr nonnull %13)
  br label %410

94:                                               ; preds = %29
  %95 = add nsw i64 %31, -1
  %96 = add i64 %30, 1
  %97 = mul nsw i64 %20, %30
  %98 = add nsw i64 %97, %22
  %99 = ashr i64 %98, %4
  %100 = add nsw i64 %19, %99
  %101 = lshr i64 %30, 55
  %102 = and i64 %101, 256
  %103 = getelementptr i64, ptr %11, i64 %30
  %104 = getelementptr i64, ptr %103, i64 %102
  store i64 %100, ptr %104, align 8
  br label %29

105:                                              ; preds = %109, %152
  %106 = phi i64 [ 0, %152 ], [ %121, %109 ]
  %107 = phi i64 [ %159, %152 ], [ %120, %109 ]
  %108 = icmp sgt i64 %107, 0
  br i1 %108, label %119, label %113

109:                                              ; preds = %119, %126
  %110 = phi i64 [ 0, %119 ], [ %128, %126 ]
  %111 = phi i64 [ 8, %119 ], [ %127, %126 ]
  %112 = icmp sgt i64 %111, 0
  br i1 %112, label %126, label %105

113:                                              ; preds = %105
  %114 = shl i64 %48, 3
  %115 = icmp slt i64 %114, 0
  %116 = select i1 %115, i64 %7, i64 0
  %117 = add i64 %114, %116
  %118 = icmp slt i64 %117, 0
  br i1 %118, label %160, label %161, !prof !0

119:                                              ; preds = %105
  %120 = add nsw i64 %107, -1
  %121 = add i64 %106, 1
  %122 = call ptr @llvm.launder.invariant.group.p0(ptr %0)
  %123 = mul i64 %106, %1
  %124 = getelementptr i8, ptr %122, i64 %123
  %125 = load i64, ptr %124, align 1
  br label %109

126:                                              ; preds = %109
  %127 = add nsw i64 %111, -1
  %128 = add i64 %110, 1
  %129 = shl i64 %106, 3
  %130 = add i64 %129, %110
  %131 = getelementptr i64, ptr %156, i64 %130
  %132 = load i64, ptr %131, align 8
  %133 = mul i64 %110, %1
  %134 = lshr i64 %125, %133
  %135 = and i64 %134, %158
  %136 = getelementptr i64, ptr %11, i64 %135
  %137 = load i64, ptr %136, align 8
  %138 = add nsw i64 %132, %137
  %139 = getelementptr i64, ptr %156, i64 %130
  store i64 %138, ptr %139, align 8
  br label %109

140:                                              ; preds = %44
  br label %141

141:                                              ; preds = %140, %44
  %142 = phi i64 [ %7, %140 ], [ 0, %44 ]
  %143 = icmp slt i64 %49, 0
  %144 = select i1 %143, i64 %7, i64 0
  %145 = add i64 %49, %144
  %146 = icmp slt i64 %145, 0
  br i1 %146, label %147, label %148, !prof !0

147:                                              ; preds = %141
  br label %148

148:                                              ; preds = %147, %141
  %149 = phi i64 [ 0, %147 ], [ %145, %141 ]
  %150 = icmp slt i64 %145, %7
  br i1 %150, label %152, label %151, !prof !1

151:                                              ; preds = %148
  br label %152

152:                                              ; preds = %151, %148
  %153 = phi i64 [ %7, %151 ], [ %149, %148 ]
  %154 = sub i64 %153, %142
  %155 = call i64 @llvm.smax.i64(i64 %154, i64 0)
  %156 = getelementptr i64, ptr %6, i64 %142
  %157 = shl nsw i64 -1, %1
  %158 = xor i64 %157, -1
  %159 = lshr i64 %155, 3
  br label %105

160:                                              ; preds = %113
  br label %161

161:                                              ; preds = %160, %113
  %162 = phi i64 [ 0, %160 ], [ %117, %113 ]
  %163 = icmp slt i64 %117, %7
  br i1 %163, label %165, label %164, !prof !1

164:                                              ; preds = %161
  br label %165

165:                                              ; preds = %161, %164
  %166 = phi i64 [ %7, %164 ], [ %162, %161 ]
  %167 = sub i64 %7, %166
  %168 = call i64 @llvm.smax.i64(i64 %167, i64 0)
  %169 = getelementptr i64, ptr %6, i64 %166
  br label %60

170:                                              ; preds = %60
  %171 = add nsw i64 %62, -1
  %172 = add i64 %61, 1
  %173 = icmp slt i64 %61, 0
  %174 = select i1 %173, i64 %168, i64 0
  %175 = getelementptr i64, ptr %169, i64 %61
  %176 = getelementptr i64, ptr %175, i64 %174
  %177 = load i64, ptr %176, align 8
  %178 = lshr i64 %61, 57
  %179 = and i64 %178, 64
  %180 = getelementptr i64, ptr %13, i64 %61
  %181 = getelementptr i64, ptr %180, i64 %179
  store i64 %177, ptr %181, align 8
  br label %60

182:                                              ; preds = %186, %212
  %183 = phi i64 [ 0, %212 ], [ %192, %186 ]
  %184 = phi i64 [ %214, %212 ], [ %191, %186 ]
  %185 = icmp sgt i64 %184, 0
  br i1 %185, label %190, label %89

186:                                              ; preds = %190, %197
  %187 = phi i64 [ 0, %190 ], [ %199, %197 ]
  %188 = phi i64 [ 8, %190 ], [ %198, %197 ]
  %189 = icmp sgt i64 %188, 0
  br i1 %189, label %197, label %182

190:                                              ; preds = %182
  %191 = add nsw i64 %184, -1
  %192 = add i64 %183, 1
  %193 = call ptr @llvm.launder.invariant.group.p0(ptr nonnull %12)
  %194 = mul i64 %183, %1
  %195 = getelementptr i8, ptr %193, i64 %194
  %196 = load i64, ptr %195, align 1
  br label %186

197:                                              ; preds = %186
  %198 = add nsw i64 %188, -1
  %199 = add i64 %187, 1
  %200 = shl i64 %183, 3
  %201 = add i64 %200, %187
  %202 = getelementptr i64, ptr %13, i64 %201
  %203 = load i64, ptr %202, align 8
  %204 = mul i64 %187, %1
  %205 = lshr i64 %196, %204
  %206 = and i64 %205, %216
  %207 = getelementptr i64, ptr %11, i64 %206
  %208 = load i64, ptr %207, align 8
  %209 = add nsw i64 %203, %208
  %210 = getelementptr i64, ptr %13, i64 %201
  store i64 %209, ptr %210, align 8
  br label %186

211:                                              ; preds = %72
  br label %212

212:                                              ; preds = %211, %72
  %213 = phi i64 [ 64, %211 ], [ %74, %72 ]
  %214 = lshr exact i64 %213, 3
  %215 = shl nsw i64 -1, %1
  %216 = xor i64 %215, -1
  br label %182

217:                                              ; preds = %89
  %218 = add nsw i64 %91, -1
  %219 = add i64 %90, 1
  %220 = lshr i64 %90, 57
  %221 = and i64 %220, 64
  %222 = getelementptr i64, ptr %13, i64 %90
  %223 = getelementptr i64, ptr %222, i64 %221
  %224 = load i64, ptr %223, align 8
  %225 = icmp slt i64 %90, 0
  %226 = select i1 %225, i64 %168, i64 0
  %227 = getelementptr i64, ptr %169, i64 %90
  %228 = getelementptr i64, ptr %227, i64 %226
  store i64 %224, ptr %228, align 8
  br label %89

229:                                              ; preds = %8
  call void @llvm.lifetime.start.p0(ptr nonnull %9)
  call void @llvm.lifetime.start.p0(ptr nonnull %10)
  %230 = add nuw i64 %7, 4095
  %231 = lshr i64 %230, 12
  %232 = icmp sgt i64 %7, 0
  %233 = select i1 %232, i64 %231, i64 0
  br label %234

234:                                              ; preds = %238, %229
  %235 = phi i64 [ 0, %229 ], [ %245, %238 ]
  %236 = phi i64 [ %233, %229 ], [ %244, %238 ]
  %237 = icmp sgt i64 %236, 0
  br i1 %237, label %243, label %242

238:                                              ; preds = %328, %387
  %239 = phi i64 [ %389, %387 ], [ 0, %328 ]
  %240 = phi i64 [ %388, %387 ], [ %270, %328 ]
  %241 = icmp sgt i64 %240, 0
  br i1 %241, label %387, label %234

242:                                              ; preds = %234
  call void @llvm.lifetime.end.p0(ptr nonnull %9)
  call void @llvm.lifetime.end.p0(ptr nonnull %10)
  br label %410

243:                                              ; preds = %234
  %244 = add nsw i64 %236, -1
  %245 = add i64 %235, 4096
  %246 = add nsw i64 %235, 4096
  %247 = icmp slt i64 %235, 0
  %248 = select i1 %247, i64 %7, i64 0
  %249 = add i64 %235, %248
  %250 = icmp slt i64 %249, 0
  br i1 %250, label %251, label %252, !prof !0

251:                                              ; preds = %243
  br label %252

252:                                              ; preds = %251, %243
  %253 = phi i64 [ 0, %251 ], [ %249, %243 ]
  %254 = icmp slt i64 %249, %7
  br i1 %254, label %256, label %255, !prof !1

255:                                              ; preds = %252
  br label %256

256:                                              ; preds = %255, %252
  %257 = phi i64 [ %7, %255 ], [ %253, %252 ]
  %258 = icmp slt i64 %235, -4096
  %259 = select i1 %258, i64 %7, i64 0
  %260 = add i64 %246, %259
  %261 = icmp slt i64 %260, 0
  br i1 %261, label %262, label %263, !prof !0

262:                                              ; preds = %256
  br label %263

263:                                              ; preds = %262, %256
  %264 = phi i64 [ 0, %262 ], [ %260, %256 ]
  %265 = icmp slt i64 %260, %7
  br i1 %265, label %267, label %266, !prof !1

266:                                              ; preds = %263
  br label %267

267:                                              ; preds = %266, %263
  %268 = phi i64 [ %7, %266 ], [ %264, %263 ]
  %269 = sub i64 %268, %257
  %270 = call i64 @llvm.smax.i64(i64 %269, i64 0)
  %271 = getelementptr i64, ptr %6, i64 %257
  %272 = add nsw i64 %235, %270
  %273 = add nuw nsw i64 %270, 7
  %274 = mul nsw i64 %272, %1
  %275 = add nsw i64 %274, 7
  %276 = ashr i64 %275, 3
  %277 = mul nsw i64 %235, %1
  %278 = ashr exact i64 %277, 3
  %279 = icmp slt i64 %278, 0
  %280 = select i1 %279, i64 %25, i64 0
  %281 = add nsw i64 %278, %280
  %282 = icmp slt i64 %281, 0
  br i1 %282, label %283, label %284, !prof !0

283:                                              ; preds = %267
  br label %284

284:                                              ; preds = %283, %267
  %285 = phi i64 [ 0, %283 ], [ %281, %267 ]
  %286 = icmp slt i64 %281, %25
  br i1 %286, label %288, label %287, !prof !1

287:                                              ; preds = %284
  br label %288

288:                                              ; preds = %287, %284
  %289 = phi i64 [ %25, %287 ], [ %285, %284 ]
  %290 = icmp slt i64 %276, 0
  %291 = select i1 %290, i64 %25, i64 0
  %292 = add nsw i64 %276, %291
  %293 = icmp slt i64 %292, 0
  br i1 %293, label %294, label %295, !prof !0

294:                                              ; preds = %288
  br label %295

295:                                              ; preds = %294, %288
  %296 = phi i64 [ 0, %294 ], [ %292, %288 ]
  %297 = icmp slt i64 %292, %25
  br i1 %297, label %299, label %298, !prof !1

298:                                              ; preds = %295
  br label %299

299:                                              ; preds = %298, %295
  %300 = phi i64 [ %25, %298 ], [ %296, %295 ]
  %301 = sub nsw i64 %300, %289
  %302 = call i64 @llvm.smax.i64(i64 %301, i64 0)
  %303 = getelementptr i8, ptr %0, i64 %289
  %304 = lshr i64 %273, 2
  %305 = and i64 %304, 2305843009213693950
  %306 = icmp sgt i64 %269, 4088
  br i1 %306, label %384, label %385, !prof !0

307:                                              ; preds = %385, %332
  %308 = phi i64 [ 0, %385 ], [ %334, %332 ]
  %309 = phi i64 [ %302, %385 ], [ %333, %332 ]
  %310 = icmp sgt i64 %309, 0
  br i1 %310, label %332, label %311

311:                                              ; preds = %307
  %312 = shl i64 %1, 2
  %313 = shl nuw i64 %1, 1
  %314 = sub i64 32, %313
  %315 = shl nuw i64 %1, 1
  %316 = sub i64 64, %315
  %317 = lshr i64 -1, %316
  %318 = sub nsw i64 64, %1
  %319 = lshr i64 -1, %318
  %320 = mul i64 %319, 4294967297
  %321 = sub i64 64, %312
  %322 = lshr i64 -1, %321
  %323 = lshr exact i64 %386, 1
  br label %324

324:                                              ; preds = %311, %344
  %325 = phi i64 [ 0, %311 ], [ %346, %344 ]
  %326 = phi i64 [ %323, %311 ], [ %345, %344 ]
  %327 = icmp sgt i64 %326, 0
  br i1 %327, label %344, label %328

328:                                              ; preds = %324, %367
  %329 = phi i64 [ %369, %367 ], [ 0, %324 ]
  %330 = phi i64 [ %368, %367 ], [ %386, %324 ]
  %331 = icmp sgt i64 %330, 0
  br i1 %331, label %367, label %238

332:                                              ; preds = %307
  %333 = add nsw i64 %309, -1
  %334 = add i64 %308, 1
  %335 = icmp slt i64 %308, 0
  %336 = select i1 %335, i64 %302, i64 0
  %337 = getelementptr i8, ptr %303, i64 %308
  %338 = getelementptr i8, ptr %337, i64 %336
  %339 = load i8, ptr %338, align 1
  %340 = icmp slt i64 %308, 0
  %341 = add i64 %308, 8208
  %342 = select i1 %340, i64 %341, i64 %308
  %343 = getelementptr i8, ptr %10, i64 %342
  store i8 %339, ptr %343, align 1
  br label %307

344:                                              ; preds = %324
  %345 = add nsw i64 %326, -1
  %346 = add i64 %325, 1
  %347 = mul i64 %325, %1
  %348 = getelementptr i8, ptr %10, i64 %347
  %349 = load i64, ptr %348, align 1
  %350 = mul i64 %325, %1
  %351 = getelementptr i8, ptr %10, i64 %350
  %352 = getelementptr i8, ptr %351, i64 8
  %353 = load i64, ptr %352, align 1
  %354 = and i64 %349, %322
  %355 = shl i64 %325, 4
  %356 = getelementptr i8, ptr %9, i64 %355
  store i64 %354, ptr %356, align 8
  %357 = lshr i64 %349, 1
  %358 = add i64 %312, -1
  %359 = lshr i64 %357, %358
  %360 = sub i64 64, %312
  %361 = shl i64 %353, %360
  %362 = or i64 %359, %361
  %363 = and i64 %362, %322
  %364 = shl i64 %325, 4
  %365 = getelementptr i8, ptr %9, i64 %364
  %366 = getelementptr i8, ptr %365, i64 8
  store i64 %363, ptr %366, align 8
  br label %324

367:                                              ; preds = %328
  %368 = add nsw i64 %330, -1
  %369 = add i64 %329, 1
  %370 = getelementptr i64, ptr %9, i64 %329
  %371 = load i64, ptr %370, align 8
  %372 = and i64 %371, %317
  %373 = shl i64 %371, %314
  %374 = shl i64 %317, 32
  %375 = and i64 %373, %374
  %376 = or i64 %372, %375
  %377 = and i64 %376, %320
  %378 = sub nsw i64 16, %1
  %379 = shl i64 %376, %378
  %380 = mul i64 %319, 281474976776192
  %381 = and i64 %379, %380
  %382 = or i64 %377, %381
  %383 = getelementptr i64, ptr %9, i64 %329
  store i64 %382, ptr %383, align 8
  br label %328

384:                                              ; preds = %299
  br label %385

385:                                              ; preds = %384, %299
  %386 = phi i64 [ 1024, %384 ], [ %305, %299 ]
  br label %307

387:                                              ; preds = %238
  %388 = add nsw i64 %240, -1
  %389 = add i64 %239, 1
  %390 = icmp slt i64 %239, 0
  %391 = select i1 %390, i64 %270, i64 0
  %392 = getelementptr i64, ptr %271, i64 %239
  %393 = getelementptr i64, ptr %392, i64 %391
  %394 = load i64, ptr %393, align 8
  %395 = lshr i64 %239, 51
  %396 = and i64 %395, 4096
  %397 = getelementptr i16, ptr %9, i64 %239
  %398 = getelementptr i16, ptr %397, i64 %396
  %399 = load i16, ptr %398, align 2
  %400 = zext i16 %399 to i64
  %401 = mul nsw i64 %20, %400
  %402 = add nsw i64 %401, %22
  %403 = ashr i64 %402, %4
  %404 = add nsw i64 %19, %403
  %405 = add nsw i64 %394, %404
  %406 = icmp slt i64 %239, 0
  %407 = select i1 %406, i64 %270, i64 0
  %408 = getelementptr i64, ptr %271, i64 %239
  %409 = getelementptr i64, ptr %408, i64 %407
  store i64 %405, ptr %409, align 8
  br label %238

410:                                              ; preds = %242, %93
  ret void
}

define void @code_sums(ptr %0, i64 %1, i64 %2, ptr %3) {
  %5 = alloca [4096 x i16], align 64
  %6 = alloca [8208 x i8], align 64
  call void @llvm.lifetime.start.p0(ptr nonnull %5)
  call void @llvm.lifetime.start.p0(ptr nonnull %6)
  %7 = mul nsw i64 %2, %1
  %8 = add nsw i64 %7, 7
  %9 = ashr i64 %8, 3
  %10 = add nuw i64 %2, 4095
  %11 = lshr i64 %10, 12
  %12 = icmp sgt i64 %2, 0
  %13 = select i1 %12, i64 %11, i64 0
  br label %14

14:                                               ; preds = %20, %4
  %15 = phi i64 [ 0, %4 ], [ %30, %20 ]
  %16 = phi i64 [ %13, %4 ], [ %29, %20 ]
  %17 = phi i64 [ 0, %4 ], [ %23, %20 ]
  %18 = phi i64 [ 0, %4 ], [ %24, %20 ]
  %19 = icmp sgt i64 %16, 0
  br i1 %19, label %28, label %26

20:                                               ; preds = %99, %161
  %21 = phi i64 [ 0, %99 ], [ %163, %161 ]
  %22 = phi i64 [ %101, %99 ], [ %162, %161 ]
  %23 = phi i64 [ %17, %99 ], [ %170, %161 ]
  %24 = phi i64 [ %18, %99 ], [ %172, %161 ]
  %25 = icmp sgt i64 %22, 0
  br i1 %25, label %161, label %14

26:                                               ; preds = %14
  store i64 %17, ptr %3, align 8
  %27 = getelementptr i8, ptr %3, i64 8
  store i64 %18, ptr %27, align 8
  call void @llvm.lifetime.end.p0(ptr nonnull %5)
  call void @llvm.lifetime.end.p0(ptr nonnull %6)
  ret void

28:                                               ; preds = %14
  %29 = add nsw i64 %16, -1
  %30 = add i64 %15, 4096
  %31 = add nsw i64 %15, 4096
  %32 = icmp slt i64 %31, %2
  %33 = add nsw i64 %15, 4096
  %34 = select i1 %32, i64 %33, i64 %2
  %35 = sub nsw i64 %34, %15
  %36 = add nsw i64 %35, 7
  %37 = mul nsw i64 %34, %1
  %38 = add nsw i64 %37, 7
  %39 = ashr i64 %38, 3
  %40 = mul nsw i64 %15, %1
  %41 = ashr exact i64 %40, 3
  %42 = icmp slt i64 %41, 0
  %43 = select i1 %42, i64 %9, i64 0
  %44 = add nsw i64 %41, %43
  %45 = icmp slt i64 %44, 0
  br i1 %45, label %46, label %47, !prof !0

46:                                               ; preds = %28
  br label %47

47:                                               ; preds = %46, %28
  %48 = phi i64 [ 0, %46 ], [ %44, %28 ]
  %49 = icmp slt i64 %44, %9
  br i1 %49, label %51, label %50, !prof !1

50:                                               ; preds = %47
  br label %51

51:                                               ; preds = %50, %47
  %52 = phi i64 [ %9, %50 ], [ %48, %47 ]
  %53 = icmp slt i64 %39, 0
  %54 = select i1 %53, i64 %9, i64 0
  %55 = add nsw i64 %39, %54
  %56 = icmp slt i64 %55, 0
  br i1 %56, label %57, label %58, !prof !0

57:                                               ; preds = %51
  br label %58

58:                                               ; preds = %57, %51
  %59 = phi i64 [ 0, %57 ], [ %55, %51 ]
  %60 = icmp slt i64 %55, %9
  br i1 %60, label %62, label %61, !prof !1

61:                                               ; preds = %58
  br label %62

62:                                               ; preds = %61, %58
  %63 = phi i64 [ %9, %61 ], [ %59, %58 ]
  %64 = sub nsw i64 %63, %52
  %65 = call i64 @llvm.smax.i64(i64 %64, i64 0)
  %66 = getelementptr i8, ptr %0, i64 %52
  %67 = ashr i64 %36, 2
  %68 = and i64 %67, -2
  %69 = lshr i64 %67, 53
  %70 = and i64 %69, 1024
  %71 = add nsw i64 %68, %70
  %72 = icmp slt i64 %71, 0
  br i1 %72, label %154, label %155, !prof !0

73:                                               ; preds = %159, %102
  %74 = phi i64 [ 0, %159 ], [ %104, %102 ]
  %75 = phi i64 [ %65, %159 ], [ %103, %102 ]
  %76 = icmp sgt i64 %75, 0
  br i1 %76, label %102, label %77

77:                                               ; preds = %73
  %78 = shl i64 %1, 2
  %79 = shl i64 %1, 1
  %80 = sub i64 32, %79
  %81 = shl i64 %1, 1
  %82 = sub i64 64, %81
  %83 = lshr i64 -1, %82
  %84 = sub i64 64, %1
  %85 = lshr i64 -1, %84
  %86 = mul i64 %85, 4294967297
  %87 = sub i64 64, %78
  %88 = lshr i64 -1, %87
  %89 = ashr i64 %160, 1
  %90 = call i64 @llvm.smax.i64(i64 %89, i64 0)
  br label %91

91:                                               ; preds = %77, %114
  %92 = phi i64 [ 0, %77 ], [ %116, %114 ]
  %93 = phi i64 [ %90, %77 ], [ %115, %114 ]
  %94 = icmp sgt i64 %93, 0
  br i1 %94, label %114, label %95

95:                                               ; preds = %91, %137
  %96 = phi i64 [ %139, %137 ], [ 0, %91 ]
  %97 = phi i64 [ %138, %137 ], [ %160, %91 ]
  %98 = icmp sgt i64 %97, 0
  br i1 %98, label %137, label %99

99:                                               ; preds = %95
  %100 = sub nsw i64 %34, %15
  %101 = call i64 @llvm.smax.i64(i64 %100, i64 0)
  br label %20

102:                                              ; preds = %73
  %103 = add nsw i64 %75, -1
  %104 = add i64 %74, 1
  %105 = icmp slt i64 %74, 0
  %106 = select i1 %105, i64 %65, i64 0
  %107 = getelementptr i8, ptr %66, i64 %74
  %108 = getelementptr i8, ptr %107, i64 %106
  %109 = load i8, ptr %108, align 1
  %110 = icmp slt i64 %74, 0
  %111 = add i64 %74, 8208
  %112 = select i1 %110, i64 %111, i64 %74
  %113 = getelementptr i8, ptr %6, i64 %112
  store i8 %109, ptr %113, align 1
  br label %73

114:                                              ; preds = %91
  %115 = add nsw i64 %93, -1
  %116 = add i64 %92, 1
  %117 = mul i64 %92, %1
  %118 = getelementptr i8, ptr %6, i64 %117
  %119 = load i64, ptr %118, align 1
  %120 = mul i64 %92, %1
  %121 = getelementptr i8, ptr %6, i64 %120
  %122 = getelementptr i8, ptr %121, i64 8
  %123 = load i64, ptr %122, align 1
  %124 = and i64 %119, %88
  %125 = shl i64 %92, 4
  %126 = getelementptr i8, ptr %5, i64 %125
  store i64 %124, ptr %126, align 8
  %127 = lshr i64 %119, 1
  %128 = add i64 %78, -1
  %129 = lshr i64 %127, %128
  %130 = sub i64 64, %78
  %131 = shl i64 %123, %130
  %132 = or i64 %129, %131
  %133 = and i64 %132, %88
  %134 = shl i64 %92, 4
  %135 = getelementptr i8, ptr %5, i64 %134
  %136 = getelementptr i8, ptr %135, i64 8
  store i64 %133, ptr %136, align 8
  br label %91

137:                                              ; preds = %95
  %138 = add nsw i64 %97, -1
  %139 = add i64 %96, 1
  %140 = getelementptr i64, ptr %5, i64 %96
  %141 = load i64, ptr %140, align 8
  %142 = and i64 %141, %83
  %143 = shl i64 %141, %80
  %144 = shl i64 %83, 32
  %145 = and i64 %143, %144
  %146 = or i64 %142, %145
  %147 = and i64 %146, %86
  %148 = sub i64 16, %1
  %149 = shl i64 %146, %148
  %150 = mul i64 %85, 281474976776192
  %151 = and i64 %149, %150
  %152 = or i64 %147, %151
  %153 = getelementptr i64, ptr %5, i64 %96
  store i64 %152, ptr %153, align 8
  br label %95

154:                                              ; preds = %62
  br label %155

155:                                              ; preds = %154, %62
  %156 = phi i64 [ 0, %154 ], [ %71, %62 ]
  %157 = icmp sgt i64 %71, 1023
  br i1 %157, label %158, label %159, !prof !0

158:                                              ; preds = %155
  br label %159

159:                                              ; preds = %158, %155
  %160 = phi i64 [ 1024, %158 ], [ %156, %155 ]
  br label %73

161:                                              ; preds = %20
  %162 = add nsw i64 %22, -1
  %163 = add i64 %21, 1
  %164 = lshr i64 %21, 51
  %165 = and i64 %164, 4096
  %166 = getelementptr i16, ptr %5, i64 %21
  %167 = getelementptr i16, ptr %166, i64 %165
  %168 = load i16, ptr %167, align 2
  %169 = zext i16 %168 to i64
  %170 = add i64 %23, %169
  %171 = mul nuw nsw i64 %169, %169
  %172 = add i64 %24, %171
  br label %20
}

; Function Attrs: nocallback nocreateundeforpoison nofree nosync nounwind speculatable willreturn memory(none)
declare double @llvm.rint.f64(double) #0

define void @accumulate_raw(ptr %0, double %1, i64 %2, ptr %3, i64 %4) {
  %6 = call i64 @llvm.smax.i64(i64 %4, i64 0)
  br label %7

7:                                                ; preds = %33, %5
  %8 = phi i64 [ 0, %5 ], [ %15, %33 ]
  %9 = phi i64 [ %6, %5 ], [ %14, %33 ]
  %10 = phi double [ 0.000000e+00, %5 ], [ %29, %33 ]
  %11 = icmp sgt i64 %9, 0
  br i1 %11, label %13, label %12

12:                                               ; preds = %7
  ret void

13:                                               ; preds = %7
  %14 = add nsw i64 %9, -1
  %15 = add i64 %8, 1
  %16 = icmp slt i64 %8, 0
  %17 = select i1 %16, i64 %4, i64 0
  %18 = getelementptr i64, ptr %3, i64 %8
  %19 = getelementptr i64, ptr %18, i64 %17
  %20 = load i64, ptr %19, align 8
  %21 = icmp slt i64 %8, 0
  %22 = select i1 %21, i64 %4, i64 0
  %23 = getelementptr float, ptr %0, i64 %8
  %24 = getelementptr float, ptr %23, i64 %22
  %25 = load float, ptr %24, align 4
  %26 = fpext float %25 to double
  %27 = fmul double %1, %26
  br label %28

28:                                               ; preds = %31, %13
  %29 = phi double [ %10, %13 ], [ %32, %31 ]
  %30 = phi i1 [ true, %13 ], [ false, %31 ]
  br i1 %30, label %31, label %33

31:                                               ; preds = %28
  %32 = call double @llvm.rint.f64(double %27)
  br label %28

33:                                               ; preds = %28
  %34 = fptosi double %29 to i64
  %35 = mul nsw i64 %2, %34
  %36 = add nsw i64 %20, %35
  %37 = icmp slt i64 %8, 0
  %38 = select i1 %37, i64 %4, i64 0
  %39 = getelementptr i64, ptr %3, i64 %8
  %40 = getelementptr i64, ptr %39, i64 %38
  store i64 %36, ptr %40, align 8
  br label %7
}

define void @add_scaled(ptr %0, ptr %1, double %2, ptr %3, i64 %4) {
  %6 = call i64 @llvm.smax.i64(i64 %4, i64 0)
  br label %7

7:                                                ; preds = %5, %12
  %8 = phi i64 [ 0, %5 ], [ %14, %12 ]
  %9 = phi i64 [ %6, %5 ], [ %13, %12 ]
  %10 = icmp sgt i64 %9, 0
  br i1 %10, label %12, label %11

11:                                               ; preds = %7
  ret void

12:                                               ; preds = %7
  %13 = add nsw i64 %9, -1
  %14 = add i64 %8, 1
  %15 = icmp slt i64 %8, 0
  %16 = select i1 %15, i64 %4, i64 0
  %17 = getelementptr float, ptr %0, i64 %8
  %18 = getelementptr float, ptr %17, i64 %16
  %19 = load float, ptr %18, align 4
  %20 = icmp slt i64 %8, 0
  %21 = select i1 %20, i64 %4, i64 0
  %22 = getelementptr i64, ptr %1, i64 %8
  %23 = getelementptr i64, ptr %22, i64 %21
  %24 = load i64, ptr %23, align 8
  %25 = sitofp i64 %24 to double
  %26 = fmul double %2, %25
  %27 = fptrunc double %26 to float
  %28 = fadd float %19, %27
  %29 = icmp slt i64 %8, 0
  %30 = select i1 %29, i64 %4, i64 0
  %31 = getelementptr float, ptr %3, i64 %8
  %32 = getelementptr float, ptr %31, i64 %30
  store float %28, ptr %32, align 4
  br label %7
}

define void @histogram(ptr %0, i64 %1, ptr %2) {
  %4 = call i64 @llvm.smax.i64(i64 %1, i64 0)
  br label %5

5:                                                ; preds = %3, %10
  %6 = phi i64 [ 0, %3 ], [ %12, %10 ]
  %7 = phi i64 [ %4, %3 ], [ %11, %10 ]
  %8 = icmp sgt i64 %7, 0
  br i1 %8, label %10, label %9

9:                                                ; preds = %5
  ret void

10:                                               ; preds = %5
  %11 = add nsw i64 %7, -1
  %12 = add i64 %6, 1
  %13 = icmp slt i64 %6, 0
  %14 = select i1 %13, i64 %1, i64 0
  %15 = getelementptr i8, ptr %0, i64 %6
  %16 = getelementptr i8, ptr %15, i64 %14
  %17 = load i8, ptr %16, align 1
  %18 = zext i8 %17 to i64
  %19 = getelementptr i64, ptr %2, i64 %18
  %20 = load i64, ptr %19, align 8
  %21 = add nsw i64 %20, 1
  %22 = zext i8 %17 to i64
  %23 = getelementptr i64, ptr %2, i64 %22
  store i64 %21, ptr %23, align 8
  br label %5
}

define void @split_mode(ptr %0, i64 %1, i64 %2, ptr %3, ptr %4, ptr %5) {
  %7 = trunc i64 %2 to i8
  %8 = and i64 %1, -8
  %9 = call i64 @llvm.smax.i64(i64 %1, i64 7)
  %10 = lshr i64 %9, 3
  br label %11

11:                                               ; preds = %6, %22
  %12 = phi i64 [ 0, %6 ], [ %42, %22 ]
  %13 = phi i64 [ %10, %6 ], [ %41, %22 ]
  %14 = phi i64 [ 0, %6 ], [ %19, %22 ]
  %15 = icmp sgt i64 %13, 0
  br i1 %15, label %40, label %26

16:                                               ; preds = %40, %43
  %17 = phi i64 [ 0, %40 ], [ %45, %43 ]
  %18 = phi i64 [ 8, %40 ], [ %44, %43 ]
  %19 = phi i64 [ %14, %40 ], [ %52, %43 ]
  %20 = phi i64 [ 0, %40 ], [ %54, %43 ]
  %21 = icmp sgt i64 %18, 0
  br i1 %21, label %43, label %22

22:                                               ; preds = %16
  %23 = trunc i64 %20 to i8
  %24 = lshr exact i64 %12, 3
  %25 = getelementptr i8, ptr %3, i64 %24
  store i8 %23, ptr %25, align 1
  br label %11

26:                                               ; preds = %11
  %27 = and i64 %1, 7
  %28 = shl nuw nsw i64 1, %27
  %29 = and i64 %1, 7
  br label %30

30:                                               ; preds = %26, %55
  %31 = phi i64 [ %8, %26 ], [ %57, %55 ]
  %32 = phi i64 [ %29, %26 ], [ %56, %55 ]
  %33 = phi i64 [ %14, %26 ], [ %63, %55 ]
  %34 = phi i64 [ %28, %26 ], [ %66, %55 ]
  %35 = icmp sgt i64 %32, 0
  br i1 %35, label %55, label %36

36:                                               ; preds = %30
  %37 = trunc i64 %34 to i8
  %38 = lshr i64 %1, 3
  %39 = getelementptr i8, ptr %3, i64 %38
  store i8 %37, ptr %39, align 1
  store i64 %33, ptr %5, align 8
  ret void

40:                                               ; preds = %11
  %41 = add nsw i64 %13, -1
  %42 = add i64 %12, 8
  br label %16

43:                                               ; preds = %16
  %44 = add nsw i64 %18, -1
  %45 = add i64 %17, 1
  %46 = getelementptr i8, ptr %0, i64 %12
  %47 = getelementptr i8, ptr %46, i64 %17
  %48 = load i8, ptr %47, align 1
  %49 = icmp ne i8 %48, %7
  %50 = zext i1 %49 to i64
  %51 = getelementptr i8, ptr %4, i64 %19
  store i8 %48, ptr %51, align 1
  %52 = add i64 %19, %50
  %53 = shl nuw i64 %50, %17
  %54 = or i64 %20, %53
  br label %16

55:                                               ; preds = %30
  %56 = add nsw i64 %32, -1
  %57 = add i64 %31, 1
  %58 = getelementptr i8, ptr %0, i64 %31
  %59 = load i8, ptr %58, align 1
  %60 = icmp ne i8 %59, %7
  %61 = zext i1 %60 to i64
  %62 = getelementptr i8, ptr %4, i64 %33
  store i8 %59, ptr %62, align 1
  %63 = add i64 %33, %61
  %64 = sub i64 %31, %8
  %65 = shl nuw i64 %61, %64
  %66 = or i64 %34, %65
  br label %30
}

define void @merge_mode(ptr %0, i64 %1, ptr %2, ptr %3, i64 %4) {
  %6 = trunc i64 %1 to i8
  %7 = and i64 %4, -8
  %8 = lshr i64 %4, 3
  br label %9

9:                                                ; preds = %14, %5
  %10 = phi i64 [ 0, %5 ], [ %33, %14 ]
  %11 = phi i64 [ %8, %5 ], [ %32, %14 ]
  %12 = phi i64 [ 0, %5 ], [ %17, %14 ]
  %13 = icmp sgt i64 %11, 0
  br i1 %13, label %31, label %19

14:                                               ; preds = %31, %37
  %15 = phi i64 [ 0, %31 ], [ %39, %37 ]
  %16 = phi i64 [ 8, %31 ], [ %38, %37 ]
  %17 = phi i64 [ %12, %31 ], [ %49, %37 ]
  %18 = icmp sgt i64 %16, 0
  br i1 %18, label %37, label %9

19:                                               ; preds = %9
  %20 = lshr i64 %4, 3
  %21 = getelementptr i8, ptr %0, i64 %20
  %22 = load i8, ptr %21, align 1
  %23 = zext i8 %22 to i64
  %24 = and i64 %4, 7
  br label %25

25:                                               ; preds = %19, %50
  %26 = phi i64 [ %7, %19 ], [ %52, %50 ]
  %27 = phi i64 [ %24, %19 ], [ %51, %50 ]
  %28 = phi i64 [ %12, %19 ], [ %61, %50 ]
  %29 = icmp sgt i64 %27, 0
  br i1 %29, label %50, label %30

30:                                               ; preds = %25
  ret void

31:                                               ; preds = %9
  %32 = add nsw i64 %11, -1
  %33 = add i64 %10, 1
  %34 = getelementptr i8, ptr %0, i64 %10
  %35 = load i8, ptr %34, align 1
  %36 = zext i8 %35 to i64
  br label %14

37:                                               ; preds = %14
  %38 = add nsw i64 %16, -1
  %39 = add i64 %15, 1
  %40 = lshr i64 %36, %15
  %41 = and i64 %40, 1
  %42 = getelementptr i8, ptr %2, i64 %17
  %43 = load i8, ptr %42, align 1
  %44 = icmp eq i64 %41, 0
  %45 = select i1 %44, i8 %6, i8 %43
  %46 = shl i64 %10, 3
  %47 = getelementptr i8, ptr %3, i64 %46
  %48 = getelementptr i8, ptr %47, i64 %15
  store i8 %45, ptr %48, align 1
  %49 = add i64 %17, %41
  br label %14

50:                                               ; preds = %25
  %51 = add nsw i64 %27, -1
  %52 = add i64 %26, 1
  %53 = sub i64 %26, %7
  %54 = lshr i64 %23, %53
  %55 = and i64 %54, 1
  %56 = getelementptr i8, ptr %2, i64 %28
  %57 = load i8, ptr %56, align 1
  %58 = icmp eq i64 %55, 0
  %59 = select i1 %58, i8 %6, i8 %57
  %60 = getelementptr i8, ptr %3, i64 %26
  store i8 %59, ptr %60, align 1
  %61 = add i64 %28, %55
  br label %25
}

; Function Attrs: nocallback nofree nosync nounwind willreturn memory(argmem: readwrite)
declare void @llvm.lifetime.start.p0(ptr captures(none)) #2

; Function Attrs: nocallback nofree nosync nounwind willreturn memory(argmem: readwrite)
declare void @llvm.lifetime.end.p0(ptr captures(none)) #2

; Function Attrs: nocallback nocreateundeforpoison nofree nosync nounwind speculatable willreturn memory(none)
declare i64 @llvm.smax.i64(i64, i64) #0

; Function Attrs: nocallback nocreateundeforpoison nofree nosync nounwind speculatable willreturn memory(none)
declare i64 @llvm.smin.i64(i64, i64) #0

; Function Attrs: nocallback nocreateundeforpoison nofree nosync nounwind speculatable willreturn memory(none)
declare i32 @llvm.smin.i32(i32, i32) #0

; Function Attrs: nocallback nocreateundeforpoison nofree nosync nounwind speculatable willreturn memory(none)
declare i32 @llvm.smax.i32(i32, i32) #0

attributes #0 = { nocallback nocreateundeforpoison nofree nosync nounwind speculatable willreturn memory(none) }
attributes #1 = { nocallback nofree nosync nounwind speculatable willreturn memory(inaccessiblemem: readwrite) }
attributes #2 = { nocallback nofree nosync nounwind willreturn memory(argmem: readwrite) }

!0 = !{!"branch_weights", i32 1, i32 99}
!1 = !{!"branch_weights", i32 99, i32 1}
