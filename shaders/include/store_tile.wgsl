for (var i = 0u; i < 4u; i++) {
    for (var j = 0u; j < 4u; j++) {
        if first_row + row + i < $row_count && first_k + k + j < K {
            let to = place + j * $row_count + i;
            {{if co_operands}}
            let co_operand = co_operand_product(batch, $reduced, row_at(first_row + row + i), first_k + k + j);
            {{end}}
            $store
        }
    }
}
