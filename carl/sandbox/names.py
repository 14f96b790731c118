"""The exact allow-lists of the static policy: everything that a reward program may name, and nothing else.

A name is here because it computes from its arguments alone. Left out on purpose: everything that reaches files, memory
addresses, unwritten memory (``np.empty``), modules, global state (random numbers, print options, threads) or code in
strings.
"""

import inspect
from functools import cache


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


BUILTINS = _words(
    "abs all any bool dict divmod enumerate filter float frozenset int isinstance len list map max min next range "
    "reversed round set slice sorted sum tuple zip"
)
"""Built-in functions and types; a program sees no others."""

IMPORTS = {
    "import numpy as np": "np",
    "import cv2": "cv2",
    "import math": "math",
    "from carl import vision": "vision",
}
"""The import statements a program may contain, and the names they bind. All four are there without importing."""

NUMBERS = _words("bool bool_ uint8 uint16 uint32 uint64 int8 int16 int32 int64 intp float32 float64")
"""Kinds of numbers, after ``np.`` or as a string."""

NUMPY_VALUES = NUMBERS | _words("pi e inf nan newaxis")
"""What may follow ``np.`` and is not a function."""

GRIDS = _words("mgrid ogrid")
"""What follows ``np.`` and is subscripted."""

NUMPY_FUNCTIONS = _words(
    # making arrays
    """
    array asarray ascontiguousarray zeros zeros_like ones ones_like full full_like arange linspace eye identity meshgrid
    indices copy
    """
    # shape
    """
    atleast_1d atleast_2d atleast_3d broadcast_to concatenate stack vstack hstack dstack column_stack split
    array_split expand_dims squeeze reshape ravel transpose swapaxes moveaxis flip fliplr flipud rot90 roll repeat
    tile pad ndim shape size
    """
    # arithmetic
    """
    add subtract multiply divide true_divide floor_divide mod remainder power square sqrt cbrt exp log log2 log10
    log1p expm1 abs absolute fabs sign negative reciprocal floor ceil rint round around trunc clip maximum minimum
    fmax fmin hypot sin cos tan arcsin arccos arctan arctan2 sinh cosh tanh deg2rad rad2deg degrees radians dot
    matmul inner outer cross tensordot einsum trace linalg.norm linalg.det linalg.inv linalg.eigh linalg.svd
    linalg.lstsq linalg.solve nan_to_num interp gradient diff ediff1d convolve
    """
    # comparing and logic
    """
    equal not_equal less less_equal greater greater_equal logical_and logical_or logical_not logical_xor isclose
    allclose array_equal array_equiv isnan isinf isfinite isin all any bitwise_and bitwise_or bitwise_xor
    bitwise_not invert left_shift right_shift where select logical_and.reduce logical_or.reduce maximum.reduce
    minimum.reduce bitwise_or.reduce bitwise_and.reduce add.reduce
    """
    # reducing and counting
    """
    sum mean std var median average percentile quantile min max amin amax ptp prod cumsum cumprod nansum nanmean
    nanstd nanmedian nanmin nanmax count_nonzero argmax argmin nanargmax nanargmin cov corrcoef bincount histogram
    histogram2d digitize unique polyfit polyval
    """
    # searching and sorting
    """
    nonzero flatnonzero argwhere sort argsort lexsort searchsorted extract take take_along_axis choose compress
    append insert delete setxor1d
    unravel_index ravel_multi_index tril triu diag diagonal union1d intersect1d setdiff1d triu_indices tril_indices
    """
)

NUMPY = NUMPY_VALUES | GRIDS | NUMPY_FUNCTIONS
"""What may follow ``np.``."""

INSTEAD_OF = {
    "print": "; leave it out, a program only returns a number",
    "str": "; compare numbers or tuples instead of texts",
    "hasattr": "; test with isinstance, len or `is None`",
    "getattr": "; write the attribute after a dot",
    "iter": "; use a for loop, or an index into a list",
    "np.empty": "; use np.zeros",
    "np.empty_like": "; use np.zeros_like",
    "np.apply_along_axis": "; give `axis=` to a function of numpy, or use a list comprehension",
    "np.vectorize": "; use a list comprehension",
    "deque": "; use a list, with .pop(0) for its left end",
    "Counter": "; count in a dict, as `found[key] = found.get(key, 0) + 1`",
    "defaultdict": "; use a dict and .setdefault",
    "np.linalg.eig": "; use np.linalg.eigh",
    "np.float16": "; use np.float32",
}
"""Names that models write and that are not allowed, and what to write instead."""

DTYPE_AT = {
    **dict.fromkeys(_words("array asarray ascontiguousarray zeros zeros_like ones ones_like identity indices"), 1),
    **dict.fromkeys(_words("full full_like sum mean std var prod cumsum cumprod nansum nanmean nanstd"), 2),
    **dict.fromkeys((name for name in NUMPY_FUNCTIONS if name.endswith(".reduce")), 2),
    **dict.fromkeys(_words("arange eye"), 3),
    **dict.fromkeys(_words("trace"), 4),
    **dict.fromkeys(_words("linspace"), 5),
}
"""Functions of numpy that take a kind of numbers by position, and at which one."""

METHOD_DTYPE_AT = {
    "astype": 0,
    **dict.fromkeys(_words("sum mean std var prod cumsum cumprod"), 1),
    "trace": 3,
}
"""The same for methods of arrays."""

DTYPES = NUMBERS | _words("int float uint i1 i2 i4 i8 u1 u2 u4 u8 f4 f8")
"""Strings that name a kind of numbers."""

PADDINGS = _words("constant edge linear_ramp maximum mean median minimum reflect symmetric wrap")
"""Modes of ``np.pad`` that write every element."""

MASKED = _words("sum mean std var min max amin amax prod any all nansum nanmean nanstd nanmin nanmax")
"""Functions and methods whose ``where=`` selects what is reduced, and leaves nothing unwritten."""

ITERATORS = _words("map filter zip enumerate reversed")
"""Built-in functions that return an iterator: it can be consumed once, and its only identity is its address."""

CONSUMERS = _words("all any sum list tuple set frozenset sorted dict max min enumerate next")
"""Built-in functions that consume their first argument at once."""

CONSUMING_METHODS = _words("extend update union intersection difference issubset issuperset")

MATH = _words(
    """
    pi e inf nan tau acos acosh asin asinh atan atan2 atanh cbrt ceil copysign cos cosh degrees dist exp expm1 fabs
    floor fmod frexp fsum hypot isclose isfinite isinf isnan isqrt ldexp log log10 log1p log2 modf pow radians
    remainder sin sinh sqrt tan tanh trunc
    """
)
"""What may follow ``math.``; not ``factorial`` and its like, which only burn time."""

CV2 = _words(
    # functions
    """
    absdiff add addWeighted approxPolyDP arcLength bilateralFilter bitwise_and bitwise_not bitwise_or bitwise_xor
    blur boundingRect boxFilter boxPoints calcHist Canny circle compare compareHist connectedComponents
    connectedComponentsWithStats contourArea convertScaleAbs convexHull copyMakeBorder countNonZero cvtColor dilate
    distanceTransform divide drawContours ellipse erode extractChannel fillConvexPoly fillPoly filter2D findContours
    findNonZero fitEllipse flip floodFill GaussianBlur getStructuringElement hconcat HoughCircles HoughLines
    HoughLinesP HuMoments inRange integral isContourConvex Laplacian line LUT magnitude matchShapes matchTemplate
    max mean meanStdDev medianBlur merge min minAreaRect minEnclosingCircle minMaxLoc moments morphologyEx multiply
    norm normalize pointPolygonTest pyrDown pyrUp rectangle reduce resize rotate Scharr Sobel split subtract
    threshold transpose vconcat
    """
    # colour spaces
    """
    COLOR_RGB2GRAY COLOR_GRAY2RGB COLOR_RGB2HSV COLOR_RGB2HSV_FULL COLOR_HSV2RGB COLOR_RGB2HLS COLOR_HLS2RGB
    COLOR_RGB2LAB COLOR_RGB2Lab COLOR_LAB2RGB COLOR_RGB2LUV COLOR_RGB2YUV COLOR_RGB2YCrCb COLOR_RGB2YCR_CB
    COLOR_RGB2XYZ COLOR_RGB2BGR COLOR_BGR2RGB COLOR_BGR2GRAY COLOR_GRAY2BGR COLOR_BGR2HSV COLOR_HSV2BGR
    COLOR_BGR2LAB
    """
    # options
    """
    RETR_EXTERNAL RETR_LIST RETR_TREE RETR_CCOMP CHAIN_APPROX_NONE CHAIN_APPROX_SIMPLE THRESH_BINARY
    THRESH_BINARY_INV THRESH_TRUNC THRESH_TOZERO THRESH_TOZERO_INV THRESH_OTSU THRESH_TRIANGLE MORPH_OPEN
    MORPH_CLOSE MORPH_GRADIENT MORPH_TOPHAT MORPH_BLACKHAT MORPH_ERODE MORPH_DILATE MORPH_HITMISS MORPH_RECT
    MORPH_ELLIPSE MORPH_CROSS CC_STAT_LEFT CC_STAT_TOP CC_STAT_WIDTH CC_STAT_HEIGHT CC_STAT_AREA TM_SQDIFF
    TM_SQDIFF_NORMED TM_CCORR TM_CCORR_NORMED TM_CCOEFF TM_CCOEFF_NORMED NORM_L1 NORM_L2 NORM_INF NORM_MINMAX
    INTER_NEAREST INTER_LINEAR INTER_AREA INTER_CUBIC INTER_LANCZOS4 BORDER_CONSTANT BORDER_REPLICATE BORDER_REFLECT
    BORDER_REFLECT_101 BORDER_DEFAULT DIST_L1 DIST_L2 DIST_C HISTCMP_CORREL HISTCMP_CHISQR HISTCMP_INTERSECT
    HISTCMP_BHATTACHARYYA CONTOURS_MATCH_I1 CONTOURS_MATCH_I2 CONTOURS_MATCH_I3 HOUGH_GRADIENT ROTATE_90_CLOCKWISE
    ROTATE_180 ROTATE_90_COUNTERCLOCKWISE REDUCE_SUM REDUCE_AVG REDUCE_MAX REDUCE_MIN CMP_EQ CMP_GT CMP_GE CMP_LT
    CMP_LE CMP_NE CV_8U CV_16S CV_32S CV_32F CV_64F FILLED LINE_4 LINE_8
    """
)
"""What may follow ``cv2.``. Left out: files, windows, threads, networks, and what draws random numbers (kmeans)."""

FIELDS = _words("shape dtype size ndim T real imag")
"""Attributes of arrays that are not methods."""

METHODS = FIELDS | _words(
    # of arrays and numbers
    """
    sum mean std var min max prod any all argmax argmin argsort nonzero cumsum
    cumprod clip round astype copy reshape flatten ravel squeeze swapaxes transpose repeat take tolist item dot
    diagonal trace fill searchsorted
    """
    # of lists, sets and dictionaries
    """
    append extend insert pop remove reverse sort index count clear keys values items get setdefault update add
    discard union intersection difference issubset issuperset
    """
)
"""Attributes and methods of everything that is not a module, but for the fields of records."""


@cache
def vision_functions() -> frozenset[str]:
    """What may follow ``vision.``: the public functions of ``carl.vision``."""
    from carl import vision

    return frozenset(
        name
        for name, value in vars(vision).items()
        if inspect.isfunction(value) and value.__module__ == vision.__name__ and not name.startswith("_")
    )


@cache
def records() -> frozenset[str]:
    """The fields of the records that ``carl.vision`` returns."""
    from carl import vision

    found = [value for value in vars(vision).values() if isinstance(value, type) and hasattr(value, "_fields")]
    return frozenset().union(*(record._fields for record in found))


@cache
def attributes() -> frozenset[str]:
    """What may follow a dot behind everything that is not a module."""
    return METHODS | records()


def modules() -> dict[str, frozenset[str]]:
    """What may follow each module's name."""
    return {"np": NUMPY, "cv2": CV2, "math": MATH, "vision": vision_functions()}


@cache
def ufuncs() -> dict[str, int]:
    """Which of ``NUMPY`` work element by element, and on how many arguments."""
    import numpy as np

    named = {name: getattr(np, name, None) for name in NUMPY}
    return {name: value.nin for name, value in named.items() if isinstance(value, np.ufunc)}
