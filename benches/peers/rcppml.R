# RcppML's nmf of a sparse matrix: rcppml.R FOLDER ROWS COLUMNS RANK SEED THREADS ITERATIONS…
#
# The folder has the matrix as columns (p.bin, i.bin: int32, x.bin: double). Without iterations, only the
# start that a seed means is written, to start.bin: the factor of the rows, a component after another.
# RcppML cannot be watched and draws its start itself, so it runs from there anew for each number of
# iterations: seconds of the call, and of the processor, go to seconds.txt, w, d and h to w_N.bin, d_N.bin, h_N.bin.
suppressMessages({library(Matrix); library(RcppML)})
given <- commandArgs(trailingOnly = TRUE)
folder <- given[1]
numbers <- as.integer(given[-1])
rows <- numbers[1]; columns <- numbers[2]; rank <- numbers[3]; seed <- numbers[4]
points <- numbers[-(1:5)]
path <- function(name) file.path(folder, name)
if (length(points) == 0) {
  set.seed(seed)
  writeBin(runif(rows * rank), path("start.bin"))
  quit()
}
read <- function(name, what, size) {
  readBin(path(name), what, file.size(path(name)) / size, size)
}
matrix <- new("dgCMatrix", p = read("p.bin", "integer", 4), i = read("i.bin", "integer", 4),
              x = read("x.bin", "double", 8), Dim = c(rows, columns))
setRcppMLthreads(numbers[5])
seconds <- sapply(points, function(n) {
  began <- proc.time()
  fit <- nmf(matrix, rank, tol = 0, maxit = n, verbose = FALSE, seed = seed)
  taken <- proc.time() - began
  writeBin(as.vector(fit$w), path(paste0("w_", n, ".bin")))
  writeBin(as.vector(fit$d), path(paste0("d_", n, ".bin")))
  writeBin(as.vector(fit$h), path(paste0("h_", n, ".bin")))
  c(taken[["elapsed"]], taken[["user.self"]] + taken[["sys.self"]])
})
writeLines(c(as.character(packageVersion("RcppML")), paste(R.version$major, R.version$minor, sep = "."),
             format(c(seconds[1, ], seconds[2, ]), digits = 8)), path("seconds.txt"))
