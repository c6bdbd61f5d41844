using System.Text.RegularExpressions;
using NUnit.Framework;

namespace Ublkback.Tests;

/// <summary>Rules of the house that the compiler does not know.</summary>
public sealed partial class StyleTests
{
    // From the bottom to the top; a room may reference rooms before it only.
    private static readonly string[] Rooms =
    [
        "Ublkback.Block", "Ublkback.Hooks", "Ublkback.Plugins", "Ublkback.XenStore", "Ublkback.Blkif", "Ublkback.Linux",
        "Ublkback.Xen", "Ublkback.Images", "Ublkback.Nbd", "Ublkback.Rados", "Ublkback.Parallax",
        "Ublkback.Backend", "Ublkback.EmulatedHost", "Ublkback",
    ];

    private static readonly string[] UnsafeRooms = [
        "Ublkback.Linux", "Ublkback.Xen", "Ublkback.Blkif", "Ublkback.Rados", "Ublkback.EmulatedHost"];

    [Test]
    public void References_point_downwards()
    {
        foreach (string project in Repository.SourceFiles("*.csproj"))
        {
            int room = Array.IndexOf(Rooms, Path.GetFileNameWithoutExtension(project));
            Assert.That(room, Is.Not.Negative, $"{project} is a room that the house does not know");
            foreach (Match reference in Reference().Matches(File.ReadAllText(project)))
                Assert.That(
                    Array.IndexOf(Rooms, reference.Groups[1].Value), Is.LessThan(room),
                    $"{project} references {reference.Value}");
        }
    }

    [Test]
    public void Unsafe_code_stays_in_its_rooms()
    {
        foreach (string project in Repository.SourceFiles("*.csproj"))
        {
            string room = Path.GetFileNameWithoutExtension(project);
            Assert.That(
                File.ReadAllText(project).Contains("AllowUnsafeBlocks", StringComparison.Ordinal),
                Is.EqualTo(UnsafeRooms.Contains(room)), room);
        }
    }

    [Test]
    public void Files_stay_small()
    {
        const int MaxLines = 400;
        foreach (string file in Repository.SourceFiles("*.cs"))
            Assert.That(File.ReadAllLines(file), Has.Length.LessThanOrEqualTo(MaxLines), file);
    }

    // What would block a worker, or allocate for each request, has no place in the files that a request passes.
    [Test]
    public void The_data_path_neither_blocks_nor_allocates_by_name()
    {
        string[] path =
        [
            "Ublkback.Backend/Rings/RingServer.cs", "Ublkback.Backend/Requests/RingRequest.cs",
            "Ublkback.Backend/Rings/EventPort.cs",
            "Ublkback.Backend/Requests/RequestCheck.cs", "Ublkback.Blkif/BackRing.cs",
            "Ublkback.Linux/Workers/Worker.cs",
            "Ublkback.Linux/Kernel/IoUring.cs", "Ublkback.Images/Raw/RawImage.cs",
            "Ublkback.Backend/Grants/GuestMemory.cs",
            "Ublkback.Backend/Grants/GrantCopyBatch.cs", "Ublkback.Backend/Grants/PersistentGrants.cs",
            "Ublkback.Backend/Requests/RequestOrder.cs",
            "Ublkback.Backend/Rings/PollWindow.cs", "Ublkback.Backend/Rings/RingIdle.cs",
            "Ublkback.Backend/Rings/EventThrottle.cs", "Ublkback.Backend/Rings/WaitingRequests.cs",
            "Ublkback.Blkif/RingJournal.cs",
            "Ublkback.Linux/Workers/WorkerBuffers.cs", "Ublkback.Linux/Files/MemoryFileIo.cs",
            "Ublkback.Linux/Files/PuntedFileIo.cs", "Ublkback.Linux/Workers/RingBufferQuota.cs",
            "Ublkback.Linux/Workers/DomainBufferQuota.cs",
            "Ublkback.Images/Qcow2/Clusters/ClusterReader.cs", "Ublkback.Images/Qcow2/Clusters/ClusterWriter.cs",
            "Ublkback.Images/Qcow2/Metadata/ClusterMap.cs",
            "Ublkback.Images/Qcow2/Clusters/Extent.cs", "Ublkback.Images/Qcow2/Metadata/MetadataCache.cs",
            "Ublkback.Images/Qcow2/Format/ContainerFile.cs",
            "Ublkback.Block/Seam/ImageAccess.cs", "Ublkback.Block/Loop/LoopCondition.cs",
            "Ublkback.Parallax/Disk/BlockReader.cs", "Ublkback.Parallax/Disk/BlockWriter.cs",
            "Ublkback.Parallax/Map/BlockMap.cs",
            "Ublkback.Parallax/Log/VdiLog.cs", "Ublkback.Parallax/Log/LogBatch.cs",
            "Ublkback.Parallax/Disk/BlockClaims.cs", "Ublkback.Parallax/Disk/SourceContainers.cs",
            "Ublkback.Images/Common/RequestQuiescence.cs",
        ];
        string[] banned = ["Thread.Sleep", ".Result", ".Wait(", " lock (", "Task.Delay", ".Select(", ".Where(",
            ".ToList(", ".ToArray("];
        foreach (string file in path)
        {
            string text = File.ReadAllText(Path.Combine(Repository.Root, "src", file));
            foreach (string word in banned)
                Assert.That(
                    text.Replace("completion.Result", "", StringComparison.Ordinal), Does.Not.Contain(word), file);
        }
    }

    [Test]
    public void Nothing_depends_on_where_it_was_built()
    {
        foreach (string file in Repository.SourceFiles("*.cs")
            .Concat(Directory.EnumerateFiles(Path.Combine(Repository.Root, "scripts"))))
            Assert.That(File.ReadAllText(file), Does.Not.Contain("/work/").And.Not.Contain("../shared"), file);
    }

    [GeneratedRegex("ProjectReference Include=\"\\.\\./([^/]+)/")]
    private static partial Regex Reference();
}
