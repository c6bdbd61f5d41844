using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Ublkback.Linux.Workers;

namespace Ublkback.Linux.Kernel;

/// <summary>Memory that never moves, for the kernel and the hypervisor to read and write.</summary>
public static unsafe class PinnedMemory
{
    /// <summary>Makes a small array that the garbage collector never moves.</summary>
    public static Memory<byte> Allocate(int length) => GC.AllocateArray<byte>(length, pinned: true);

    /// <summary>Makes an array that starts on a page boundary and never moves, as direct I/O wants it.</summary>
    public static Memory<byte> AllocatePages(int length)
    {
        Memory<byte> memory = Allocate(length + MemoryMapping.PageSize);
        int skipped = (int)(-AddressNumberOf(memory) & (MemoryMapping.PageSize - 1));
        return memory.Slice(skipped, length);
    }

    /// <summary>The address of memory from <see cref="Allocate"/> or a <see cref="BufferPool"/>; of no other.</summary>
    public static byte* AddressOf(Memory<byte> memory) =>
        (byte*)Unsafe.AsPointer(ref MemoryMarshal.GetReference(memory.Span));

    /// <summary><see cref="AddressOf"/> as a number, for structures that carry addresses.</summary>
    public static nint AddressNumberOf(Memory<byte> memory) => (nint)AddressOf(memory);

    /// <summary>Copies bytes between addresses that do not overlap. The caller knows that both are mapped.</summary>
    public static void Copy(nint from, nint to, int length) => Unsafe.CopyBlock((void*)to, (void*)from, (uint)length);
}
