# A boot sector that says on the serial port what sector 1 of its disk holds, and writes that to sector 2. Firmware and QEMU read
# and write the disk for it: no driver of the guest's own.
    .code16
    .globl _start
_start:
    xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movw $_start, %sp
    movw $packet, %si
    movb $0x42, %ah # extended read, of the disk in %dl
    int $0x13
    jc failed
    movw $0x8000, %si
1:  lodsb
    testb %al, %al
    jz 2f
    call say
    jmp 1b
2:  incb packet + 8
    movw $packet, %si
    movw $0x4300, %ax # extended write
    int $0x13
    jc failed
    movw $written, %si
    jmp last
failed:
    movw $failure, %si
last:
    lodsb
    testb %al, %al
    jz 3f
    call say
    jmp last
3:  hlt
    jmp 3b
say:
    pushw %dx
    movw $0x3f8, %dx
    outb %al, %dx
    popw %dx
    ret
packet:
    .byte 16, 0, 1, 0
    .word 0x8000, 0 # where in memory
    .quad 1 # which sector
written:
    .asciz "WRITTEN\n"
failure:
    .asciz "FAILED\n"
    .org 510
    .word 0xaa55
