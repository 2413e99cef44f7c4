"""What pages call the measures of an evaluation, and what they say of them."""

# Name, what it is called, its format, and what it means.
EXPLAINED = (
    ("context_psnr", "Context view, PSNR", ".1f dB", "the sampled scene rendered at the context camera"),
    ("psnr", "PSNR", ".1f dB", "against the true views; low for a good sample that differs from the truth"),
    ("ssim", "SSIM", ".3f", "structure, 1 is equal"),
    ("lpips", "LPIPS", ".3f", "perceived difference, 0 is equal"),
    ("dists", "DISTS", ".3f", "difference in structure and texture, 0 is equal"),
    ("estimate_psnr", "Estimate, PSNR", ".1f dB", "the deterministic estimate; it scores by being blurred"),
    ("mean_sample_psnr", "Mean sample, PSNR", ".1f dB", "of the mean of all samples; it scores by being blurred"),
    ("depth_error", "Depth error", ".3f", "mean difference of distances, units of the scene"),
    ("chamfer", "Chamfer distance", ".3f", "between the surfaces seen and the true ones, units of the scene"),
    ("reprojection", "Reprojection error", ".2f px", "a pixel carried to another view by its depth, and back"),
    (
        "reprojection_colour",
        "Reprojected colour",
        ".3f",
        "root mean square difference of a point's colour between views",
    ),
    ("tsed", "TSED", ".1%", "neighbouring views whose matching points lie where the cameras say"),
    ("rotation_error", "Camera rotation, R_err", ".2f &deg;", "angle to the camera that structure-from-motion finds"),
    ("translation_error", "Camera translation, T_err", ".3f", "the same of positions, relative to the cameras' extent"),
    ("registered_views", "Registered views", ".1%", "whose camera structure-from-motion finds"),
    ("contradicted", "Contradicted", ".1%", "points of one view that another view sees through"),
    (
        "scene_psnr",
        "Scene against denoised image",
        ".1f dB",
        "what diffusion ended with, and the scene rendered there",
    ),
    ("pairwise_lpips", "Diversity, LPIPS", ".3f", "between samples of one scene"),
    ("variance", "Diversity, variance", ".4f", "over samples, mean over pixels"),
    ("ause", "AUSE", ".3f", "how far sorting pixels by their spread is from sorting them by their error; 0 is equal"),
    ("aurc", "AURC", ".4f", "mean error of the most certain pixels, over all shares of them"),
    (
        "coverage_50",
        "Coverage of 50 %",
        ".1%",
        "pixels whose truth is in this central interval of the samples",
    ),
    ("coverage_80", "Coverage of 80 %", ".1%", "the same"),
    ("coverage_95", "Coverage of 95 %", ".1%", "the same"),
    ("fid", "FID", ".1f", "distance of distributions; needs thousands of images to compare with published ones"),
    ("kid", "KID", ".4f", "the same, unbiased for few images"),
    ("fvd", "FVD", ".1f", "distance of distributions of videos; needs thousands to compare with published ones"),
    ("vgg_fid", "VGG-FID", ".2f", "as FID with features of VGG16: compares with its like only"),
    ("vgg_kid", "VGG-KID", ".4f", "as KID with features of VGG16: compares with its like only"),
)
# What has no meaning for a deterministic model.
OF_SAMPLES_ONLY = ("scene_psnr", "pairwise_lpips", "variance", "mean_sample_psnr", "ause", "aurc")
OF_SAMPLES_ONLY += ("coverage_50", "coverage_80", "coverage_95")
