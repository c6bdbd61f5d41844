using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Security.Cryptography;
using Ublkback.Block;

namespace Ublkback.Hooks.Crypt;

/// <summary>
/// <c>crypt(key=FILE,discard=no|yes)</c>: encrypts what the layers below keep, as dm-crypt's aes-xts-plain64 does. The
/// file holds the key and nothing else, 64 bytes for AES-256 or 32 for AES-128, and nobody but its owner may read it.
/// </summary>
/// <remarks>
/// Discards tell who sees the image which sectors are in use, so they are off unless asked for, as in dm-crypt.
/// </remarks>
internal sealed class CryptHook : BlockHook
{
    private readonly XtsCipher _cipher;
    private readonly RequestPool _encrypted = new();
    private readonly bool _allowsDiscard;

    /// <summary>Makes the hook of one disk.</summary>
    /// <exception cref="TargetException">The key cannot be used.</exception>
    public CryptHook(HookTarget target, ImageOpening opening)
    {
        target.AllowOnly("key", "discard");
        NeedOpenSsl();
        _allowsDiscard = target.GetChoice("discard", "no", "yes") == "yes";
        byte[] key = ReadKey(
            target.Get("key") ?? throw new TargetException("it has no key", "write crypt(key=/path/of/key)"));
        try
        {
            _cipher = new XtsCipher(key);
        }
        finally
        {
            CryptographicOperations.ZeroMemory(key);
        }
    }

    /// <inheritdoc/>
    public override ImageGeometry Measure(ImageGeometry below) =>
        _allowsDiscard ? below : below with { DiscardGranularity = 0 };

    /// <inheritdoc/>
    public override ValueTask<BlockStatus> HandleAsync(BlockRequest request, HookSeam next) => request.Operation switch
    {
        BlockOperation.Read => ReadAsync(request, next),
        BlockOperation.Write => WriteAsync(request, next),
        _ => next.HandleAsync(request),
    };

    /// <inheritdoc/>
    public override ValueTask DisposeAsync()
    {
        _cipher.Dispose();
        return base.DisposeAsync();
    }

    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    private async ValueTask<BlockStatus> ReadAsync(BlockRequest request, HookSeam next)
    {
        BlockStatus status = await next.HandleAsync(request);
        if (status == BlockStatus.Okay) _cipher.Decrypt(request.Sector, request.Data.Span, request.Data.Span);
        return status;
    }

    // Into memory of its own: whoever wrote may have the same request written again.
    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    private async ValueTask<BlockStatus> WriteAsync(BlockRequest request, HookSeam next)
    {
        BlockRequest encrypted = _encrypted.Rent(request);
        _cipher.Encrypt(request.Sector, request.Data.Span, encrypted.Data.Span);
        BlockStatus status = await next.HandleAsync(encrypted);
        _encrypted.Return(encrypted);
        return status;
    }

    // Without it, the framework ends the process when it first encrypts.
    private static void NeedOpenSsl()
    {
        if (!NativeLibrary.TryLoad("libssl.so.3", out nint library))
            throw new TargetException("it needs OpenSSL's libssl.so.3, which is not installed: apt install libssl3t64");
        NativeLibrary.Free(library);
    }

    private static byte[] ReadKey(string path)
    {
        const UnixFileMode Others =
            UnixFileMode.GroupRead | UnixFileMode.GroupWrite | UnixFileMode.OtherRead | UnixFileMode.OtherWrite;
        const int MaxLength = 64;
        try
        {
            using FileStream file = new(path, FileMode.Open, FileAccess.Read, FileShare.Read, bufferSize: 0);
            if ((File.GetUnixFileMode(file.SafeFileHandle) & Others) != 0)
                throw new TargetException($"others than its owner can use the key {path}: chmod 600 {path}");
            if (file.Length is not (MaxLength or MaxLength / 2))
                throw new TargetException($"the key {path} has {file.Length} bytes: it must be 64 (AES-256) or 32 "
                    + "(AES-128), and nothing else");
            byte[] key = new byte[file.Length];
            file.ReadExactly(key);
            return key;
        }
        catch (Exception failure) when (failure is IOException or UnauthorizedAccessException)
        {
            throw new TargetException($"the key {path} cannot be read: {failure.Message}", failure);
        }
    }
}
