using System.Diagnostics;
using NUnit.Framework;
using Ublkback.Block;
using Ublkback.Images.Qcow2;
using Ublkback.Images.Qcow2.Format;
using Ublkback.Images.Qcow2.Metadata;
using Ublkback.Images.Raw;
using Ublkback.Linux.Workers;
using Ublkback.Nbd.Client;

namespace Ublkback.Tests.Images.Qcow2;

/// <summary>A folder with images, a worker, and QEMU's tools as judges.</summary>
public abstract class Qcow2Fixture
{
    private protected const int MiB = 1 << 20;

    private int _lastDisk;

    private protected string Folder { get; private set; } = null!;

    private protected Worker Worker { get; private set; } = null!;

    private protected List<string> Warnings { get; } = [];

    [SetUp]
    public void Begin()
    {
        Folder = Directory.CreateTempSubdirectory("ublkback-test-").FullName;
        Worker = new Worker("test");
        Warnings.Clear();
    }

    [TearDown]
    public void End()
    {
        foreach (string warning in Warnings) TestContext.Out.WriteLine(warning);
        Worker.Dispose();
        Directory.Delete(Folder, recursive: true);
    }

    private protected string PathOf(string name) => Path.Combine(Folder, name);

    /// <summary>Runs one of QEMU's tools; gives what it printed. It must succeed.</summary>
    private protected static string Run(string program, params string[] arguments)
    {
        (int status, string output) = TryRun(program, arguments);
        Assert.That(status, Is.Zero, $"{program} {string.Join(' ', arguments)}: {output}");
        return output;
    }

    private protected static (int Status, string Output) TryRun(string program, params string[] arguments)
    {
        using Process process = Process.Start(
            new ProcessStartInfo(program, arguments) { RedirectStandardOutput = true, RedirectStandardError = true })!;
        Task<string> errors = process.StandardError.ReadToEndAsync();
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return (process.ExitCode, output + errors.Result);
    }

    /// <summary>An image made by QEMU.</summary>
    private protected string MakeByQemu(string name, long size, params string[] options)
    {
        Run(
            "qemu-img",
            ["create", "-q", "-f", "qcow2", .. options, PathOf(name),
                size.ToString(System.Globalization.CultureInfo.InvariantCulture)]);
        return PathOf(name);
    }

    private protected static BlockCatalog Catalog()
    {
        BlockCatalog catalog = new BlockCatalog().AddImage("raw", RawImageOpener.Open)
            .AddImage("memory", ScratchImageOpener.OpenMemory).AddNbd();
        return catalog.AddImage("qcow2", new Qcow2Opener(catalog).Open);
    }

    private protected ImageDriver Open(string target, bool isReadOnly = false, string? stateFolder = null) =>
        new(Worker, Catalog().Open(
        BlockTarget.Parse(target),
        new ImageOpening("the test", ++_lastDisk, isReadOnly, true, null, Warnings.Add, StateFolder: stateFolder)));

    /// <summary>The image holds a disk's bytes, and is in order, in QEMU's eyes.</summary>
    private protected void QemuAgrees(string path, byte[] shadow)
    {
        Assert.That(Run("qemu-img", "check", path), Does.Contain("No errors were found"));
        File.WriteAllBytes(PathOf("shadow.raw"), shadow);
        Assert.That(
            Run("qemu-img", "compare", "-f", "qcow2", "-F", "raw", path, PathOf("shadow.raw")),
            Does.Contain("identical"));
    }

    /// <summary>Opens a new image that remembers what becomes of its file.</summary>
    private protected static IBlockImage OpenRecorded(RecordingFile recording, string path, IBlockImage? backing) =>
        OpenOver(recording, recording.Content.Length, recording.SetLength, path, backing, MetadataLog.InMemory());

    /// <summary>Opens an image whose content is elsewhere than in its file.</summary>
    private protected static IBlockImage OpenOver(
        IBlockImage storage, long length, Func<long, BlockStatus> setLength, string path, IBlockImage? backing,
        MetadataLog log)
    {
        using Microsoft.Win32.SafeHandles.SafeFileHandle file = File.OpenHandle(path);
        Qcow2Tables tables = Qcow2Tables.Read(path, file);
        ContainerFile container = new(storage, length, setLength);
        Qcow2Parts parts = new(
            tables, container, backing, (backing as Qcow2Image)?.ReaderOfUnchanged, log, path,
            isReadOnly: false, TestContext.Out.WriteLine);
        return new Qcow2Image(
            parts, new ImageGeometry((ulong)tables.Header.VirtualSize / 512, 512, 4096, false, 4096), "test");
    }
}
