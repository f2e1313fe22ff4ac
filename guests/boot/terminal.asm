; a terminal: keyboard and timer by the 8259s, VGA text and COM1, a prompt with a few commands
;
; What is typed, on the keyboard or on COM1, is shown on the screen and on COM1; Enter has it carried out. Between two
; keys the processor halts, woken by the timer a hundred times a second. `help` lists the commands. What stands behind
; `run=` on the multiboot command line is carried out before the first prompt, with `;` between commands:
;
;     hvproto boot guests/boot/terminal.asm --append "run=mem;args;off"

.origin 0x100000
.entry start
.include "common/multiboot.asm"
.include "common/print.asm"          ; macros come before their use
.include "common/tables.asm"
.include "common/serial.asm"

start:
    cld
    mov esp, stack_end
    mov [loader_magic], eax
    mov [loader_info], ebx
    call load_tables
    call start_screen
    call start_interrupts           ; before the devices: the 8259s forget edges as they are initialized
    call start_timer
    call start_serial
    call start_keyboard
    sti
    SAY "terminal: ready, try help\n"
    cmp dword ptr [loader_magic], LOADER_MAGIC
    je .loaded
    SAY "terminal: no multiboot loader has loaded me\n"
    mov al, 1
    jmp exit
.loaded:
    call run_command_line
.prompt:
    SAY "> "
    mov edi, line
    call read_line
    mov esi, line
    call run_line
    jmp .prompt

put_character:                      ; AL, to the screen and to COM1; keeps all registers
    call put_on_screen
    call send_serial
    ret

.include "terminal/screen.asm"
.include "terminal/interrupts.asm"
.include "terminal/keyboard.asm"
.include "terminal/input.asm"
.include "terminal/commands.asm"
.include "terminal/power.asm"

.align 4
loader_magic: .long 0
loader_info: .long 0
line: .space LINE_SIZE
.align 16
    .space 4096
stack_end:
image_end:
